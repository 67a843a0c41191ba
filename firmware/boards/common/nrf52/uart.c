/* SPDX-License-Identifier: Apache-2.0 */
/** UART0 of the nRF52840, without DMA. Sources: nRF52840 product specification, "UART" and "GPIO". */
#include "nrf52/uart.h"

#define UART 0x40002000U
#define TASKS_STARTRX MDY_REG(UART + 0x000U)
#define TASKS_STARTTX MDY_REG(UART + 0x008U)
#define EVENTS_RXDRDY MDY_REG(UART + 0x108U)
#define EVENTS_TXDRDY MDY_REG(UART + 0x11CU)
#define INTENSET MDY_REG(UART + 0x304U)
#define ENABLE MDY_REG(UART + 0x500U)
#define PSEL_TXD MDY_REG(UART + 0x50CU)
#define PSEL_RXD MDY_REG(UART + 0x514U)
#define RXD MDY_REG(UART + 0x518U)
#define TXD MDY_REG(UART + 0x51CU)
#define BAUDRATE MDY_REG(UART + 0x524U)

#define INT_RXDRDY (1U << 2)
#define ENABLE_UART 4U

/* "BAUDRATE": those of the UART, which differ from the UARTE's. */
#if MDY_BAUD == 115200
#define BAUDRATE_VALUE 0x01D7E000U
#elif MDY_BAUD == 921600
#define BAUDRATE_VALUE 0x0EBED000U /* 941176 in fact */
#else
#error "the port knows 115200 and 921600 baud"
#endif

#define P0 0x50000000U
#define P0_OUTSET MDY_REG(P0 + 0x508U)
#define P0_PIN_CNF(n) MDY_REG(P0 + 0x700U + 4U * (n))
#define PIN_OUTPUT 3U         /* DIR output, input buffer disconnected */
#define PIN_INPUT_PULLED 0xCU /* PULL up: an open line is idle */

static bool is_sending;

void mdy_nrf52_uart_start(uint32_t tx, uint32_t rx)
{
    P0_OUTSET = 1U << tx; /* idle, before the pin becomes an output */
    P0_PIN_CNF(tx) = PIN_OUTPUT;
    P0_PIN_CNF(rx) = PIN_INPUT_PULLED;
    PSEL_TXD = tx;
    PSEL_RXD = rx;
    BAUDRATE = BAUDRATE_VALUE;
    ENABLE = ENABLE_UART;
    EVENTS_RXDRDY = 0;
    EVENTS_TXDRDY = 0;
    INTENSET = INT_RXDRDY;
    TASKS_STARTRX = 1;
    TASKS_STARTTX = 1;
}

/* The event is cleared before the byte is taken: of the next one in the FIFO of 6 it then comes again. */
bool mdy_uart_take(uint8_t *byte)
{
    if (EVENTS_RXDRDY == 0U) {
        return false;
    }
    EVENTS_RXDRDY = 0;
    *byte = (uint8_t)RXD;
    return true;
}

bool mdy_uart_put(uint8_t byte)
{
    if (is_sending && EVENTS_TXDRDY == 0U) {
        return false;
    }
    EVENTS_TXDRDY = 0;
    is_sending = true;
    TXD = byte;
    return true;
}
