/* SPDX-License-Identifier: Apache-2.0 */
/* UART0 of an RP2350 on GPIO0 and GPIO1, clk_peri 12 MHz from the XOSC. Datasheet 7.5, 8.1, 8.2, 9.11, 12.1. */
enum { UART_IRQ = 33 };

static void uart_init(uint32_t baud)
{
    REG(0x4004800C) = 47; /* XOSC STARTUP: 1 ms */
    REG(0x40048000) = 0xFABAA0;
    while (!(REG(0x40048004) >> 31)) {
    }
    REG(0x40010030) = 2; /* clk_ref: XOSC */
    while (REG(0x40010038) != 4u) {
    }
    REG(0x40010048) = 1u << 11 | 4u << 5; /* clk_peri: XOSC */
    REG(0x40023000) = 1u << 6 | 1u << 9 | 1u << 26;
    while ((REG(0x40020008) & (1u << 6 | 1u << 9 | 1u << 26)) != (1u << 6 | 1u << 9 | 1u << 26)) {
    }
    REG(0x40028004) = 2;
    REG(0x4002800C) = 2;
    REG(0x40038004) = 0x56;
    REG(0x40038008) = 0x56;
    uint32_t divisor = (12000000u * 4u + baud / 2u) / baud;
    REG(0x40070024) = divisor / 64u;
    REG(0x40070028) = divisor % 64u;
    REG(0x4007002C) = 3u << 5 | FIFO << 4;
    REG(0x40070038) = 1u << 4 | 1u << 6;
    REG(0x40070030) = 1u | 1u << 8 | 1u << 9;
}

static int uart_received(void)
{
    return !(REG(0x40070018) & 1u << 4);
}
static uint8_t uart_take(void)
{
    return (uint8_t)REG(0x40070000);
}
static int uart_empty(void)
{
    return !(REG(0x40070018) & 1u << 5);
}
static void uart_send(uint8_t byte)
{
    REG(0x40070000) = byte;
}
static int uart_idle(void)
{
    return !(REG(0x40070018) & 1u << 3);
}
