/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MDY_NRF52_UART_H
#define MDY_NRF52_UART_H

#include "cortex_m/board.h"

/** 8 data bits, no parity, one stop bit, an interrupt for each byte received; pins are numbers on port 0. */
void mdy_nrf52_uart_start(uint32_t tx, uint32_t rx);

#endif
