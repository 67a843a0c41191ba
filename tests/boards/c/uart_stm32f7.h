/* SPDX-License-Identifier: Apache-2.0 */
/* USART1 of an STM32F746 on PA9 and PB7, 16 MHz from the HSI. RM0385, 5.3, 6.4, 31.8. */
enum { UART_IRQ = 37 };

static void uart_init(uint32_t baud)
{
    REG(0x40023830) |= 3u;      /* RCC_AHB1ENR.GPIOAEN, GPIOBEN */
    REG(0x40023844) |= 1u << 4; /* RCC_APB2ENR.USART1EN */
    REG(0x40020000) = (REG(0x40020000) & ~(3u << 18)) | 2u << 18;
    REG(0x40020024) = (REG(0x40020024) & ~(15u << 4)) | 7u << 4;
    REG(0x40020400) = (REG(0x40020400) & ~(3u << 14)) | 2u << 14;
    REG(0x40020420) = (REG(0x40020420) & ~(15u << 28)) | 7u << 28;
    REG(0x4001100C) = (16000000u + baud / 2u) / baud;
    REG(0x40011000) = 1u | 1u << 5 | 1u << 3 | 1u << 2;
}

static int uart_received(void)
{
    REG(0x40011020) = 1u << 3; /* ORECF: an overrun keeps the interrupt up */
    return (REG(0x4001101C) & 1u << 5) != 0u;
}
static uint8_t uart_take(void)
{
    return (uint8_t)REG(0x40011024);
}
static int uart_empty(void)
{
    return (REG(0x4001101C) & 1u << 7) != 0u;
}
static void uart_send(uint8_t byte)
{
    REG(0x40011028) = byte;
}
static int uart_idle(void)
{
    return (REG(0x4001101C) & 1u << 6) != 0u;
}
