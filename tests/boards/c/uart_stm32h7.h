/* SPDX-License-Identifier: Apache-2.0 */
/* USART3 of an STM32H743 on PD8 and PD9, 64 MHz from the HSI. RM0433, 8.7, 11.4, 48.8. */
enum { UART_IRQ = 39 };

static void uart_init(uint32_t baud)
{
    REG(0x580244E0) |= 1u << 3;  /* RCC_AHB4ENR.GPIODEN */
    REG(0x580244E8) |= 1u << 18; /* RCC_APB1LENR.USART3EN */
    REG(0x58020C00) = (REG(0x58020C00) & ~(15u << 16)) | 10u << 16;
    REG(0x58020C24) = (REG(0x58020C24) & ~255u) | 0x77u;
    REG(0x4000480C) = (64000000u + baud / 2u) / baud;
    REG(0x40004800) = 1u | 1u << 5 | 1u << 3 | 1u << 2;
}

static int uart_received(void)
{
    REG(0x40004820) = 1u << 3; /* ORECF: an overrun keeps the interrupt up */
    return (REG(0x4000481C) & 1u << 5) != 0u;
}
static uint8_t uart_take(void)
{
    return (uint8_t)REG(0x40004824);
}
static int uart_empty(void)
{
    return (REG(0x4000481C) & 1u << 7) != 0u;
}
static void uart_send(uint8_t byte)
{
    REG(0x40004828) = byte;
}
static int uart_idle(void)
{
    return (REG(0x4000481C) & 1u << 6) != 0u;
}
