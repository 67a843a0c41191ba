/* SPDX-License-Identifier: Apache-2.0 */
/* USART1 of an STM32F4 on PA9 and PA10, 16 MHz from the HSI. RM0090, 7.3, 8.4, 30.6. */
enum { UART_IRQ = 37 };

static void uart_init(uint32_t baud)
{
    REG(0x40023830) |= 1u;      /* RCC_AHB1ENR.GPIOAEN */
    REG(0x40023844) |= 1u << 4; /* RCC_APB2ENR.USART1EN */
    REG(0x40020000) = (REG(0x40020000) & ~(15u << 18)) | 10u << 18;
    REG(0x40020024) = (REG(0x40020024) & ~(255u << 4)) | 0x77u << 4;
    REG(0x40011008) = (16000000u + baud / 2u) / baud;
    REG(0x4001100C) = 1u << 13 | 1u << 5 | 1u << 3 | 1u << 2;
}

__attribute__((unused)) static int uart_received(void)
{
    return (REG(0x40011000) & 1u << 5) != 0u;
}
__attribute__((unused)) static uint8_t uart_take(void)
{
    return (uint8_t)REG(0x40011004);
}
__attribute__((unused)) static int uart_empty(void)
{
    return (REG(0x40011000) & 1u << 7) != 0u;
}
static void uart_send(uint8_t byte)
{
    REG(0x40011004) = byte;
}
__attribute__((unused)) static int uart_idle(void)
{
    return (REG(0x40011000) & 1u << 6) != 0u;
}
