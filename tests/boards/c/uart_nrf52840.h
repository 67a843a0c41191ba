/* SPDX-License-Identifier: Apache-2.0 */
/* UART0 of an nRF52840, TXD on P0.06, RXD on P0.08. Product specification, 6.33. */
enum { UART_IRQ = 2 };

#define UART(offset) REG(0x40002000u + (offset))

static uint32_t sending;

static void uart_init(uint32_t baud)
{
    UART(0x50C) = 6;
    UART(0x514) = 8;
    UART(0x524) = baud == 115200u ? 0x01D7E000u : 0x0EBEDFA4u;
    UART(0x500) = 4;
    UART(0x304) = 1u << 2; /* RXDRDY */
    UART(0x000) = 1;
    UART(0x008) = 1;
}

static int uart_received(void)
{
    if (UART(0x108) == 0u) {
        return 0;
    }
    UART(0x108) = 0;
    return 1;
}
static uint8_t uart_take(void)
{
    return (uint8_t)UART(0x518);
}
static int uart_empty(void)
{
    if (sending && UART(0x11C)) {
        UART(0x11C) = 0;
        sending = 0;
    }
    return !sending;
}
static void uart_send(uint8_t byte)
{
    sending = 1;
    UART(0x51C) = byte;
}
static int uart_idle(void)
{
    return uart_empty();
}
