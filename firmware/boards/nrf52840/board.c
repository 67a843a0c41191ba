/* SPDX-License-Identifier: Apache-2.0 */
/**
 * nRF52840 on the development kit: 64 MHz, UART0 on P0.06 (TX) and P0.08 (RX), which the kit's J-Link shows as a serial
 * port. Source: nRF52840 product specification, "CLOCK" and "NVMC".
 */
#include "cortex_m/core.h"
#include "nrf52/uart.h"

#define CORE_HZ 64000000U
#define START_US 100000U /* the crystal takes less than 1 ms */

#define CLOCK_TASKS_HFCLKSTART MDY_REG(0x40000000U)
#define CLOCK_EVENTS_HFCLKSTARTED MDY_REG(0x40000100U)
#define NVMC_ICACHECNF MDY_REG(0x4001E540U)
#define ICACHECNF_CACHEEN 1U

#define TX_PIN 6U
#define RX_PIN 8U

void mdy_board_start(void)
{
    mdy_time_start(CORE_HZ); /* from the internal oscillator after a reset */
    CLOCK_EVENTS_HFCLKSTARTED = 0;
    CLOCK_TASKS_HFCLKSTART = 1;
    /* Without the crystal the internal oscillator goes on; the UART is then less exact. */
    (void)mdy_wait(&CLOCK_EVENTS_HFCLKSTARTED, 1U, 1U, START_US);
    NVMC_ICACHECNF = ICACHECNF_CACHEEN;
    mdy_nrf52_uart_start(TX_PIN, RX_PIN);
}
