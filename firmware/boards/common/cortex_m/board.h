/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a Cortex-M board supplies, and what the common part gives it: start-up, link, time, flash calls.
 *
 * A board's folder starts clocks and pins; drivers beside this folder know one UART or one flash controller each.
 */
#ifndef MDY_BOARD_H
#define MDY_BOARD_H

#include <stdbool.h>

#include "mdy/port.h"

/* A memory-mapped register of 32 bits. */
#define MDY_REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Of the UART; `medyate run --baud` has to say the same. */
#ifndef MDY_BAUD
#define MDY_BAUD 115200U
#endif

/* --- Of the board's folder. --- */

/** Clocks, pins, UART. Runs after .data and .bss are there, with interrupts masked; tells mdy_time_start its clock. */
void mdy_board_start(void);

/* --- Of a UART driver. --- */

/** Takes a received byte; clears what an overrun left. Returns false where none is there. */
bool mdy_uart_take(uint8_t *byte);
/** Hands a byte to the transmitter. Returns false where it has no room yet. */
bool mdy_uart_put(uint8_t byte);

/* --- Of a flash driver; addresses are the processor's, sectors and units those of the part. --- */

/** Copies n bytes. Errors: MDY_FLASH, where the part's error correction refuses them. */
mdy_status_t mdy_part_read(uint32_t address, void *dst, uint32_t n);
/** Erases the sector that begins there. Errors: MDY_FLASH: error flags, or no end within twice the longest time. */
mdy_status_t mdy_part_erase(uint32_t address);
/** Programs n bytes, whole units. Errors: as those of an erase. */
mdy_status_t mdy_part_program(uint32_t address, const uint8_t *src, uint32_t n);

/* --- Of a random number generator; a part without one leaves this out. --- */

/** Fills n bytes with random numbers. Returns false where the part has none, or they fail its own tests. */
bool mdy_part_random(uint8_t *dst, uint32_t n);

/* --- Of the common part. --- */

/** The UART's interrupt: keeps what was received. */
void mdy_isr_uart(void);
/** SysTick's interrupt: counts on before the counter of 24 bits comes round. */
void mdy_isr_systick(void);

/** Counts microseconds from now on, with a processor clock of `hz`; called again when the clock changes. */
void mdy_time_start(uint32_t hz);
/** Microseconds, modulo 2^32. */
uint32_t mdy_time_us(void);
/** Waits until the register's masked bits have that value. Returns false where they have not within so many us. */
bool mdy_wait(const volatile uint32_t *reg, uint32_t mask, uint32_t value, uint32_t us);

/**
 * Called while the port waits: for the host, for an oscillator, for the flash. The default does nothing; an application
 * that runs a watchdog defines its own. An operation on flash that stalls the processor takes up to MDY_ERASE_MAX_MS
 * without a call.
 */
void mdy_port_watchdog(void);

#endif
