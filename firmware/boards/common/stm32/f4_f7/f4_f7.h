/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Clocks and flash of the STM32F4 and F7, which share register layouts. Sources: RM0090 (F405), RM0383 (F411),
 * RM0385 (F746); sections are those of RM0090 unless another manual is named.
 */
#ifndef MDY_STM32_F4_F7_H
#define MDY_STM32_F4_F7_H

#include "cortex_m/core.h"

/* 7.3 RCC. */
#define RCC 0x40023800U
#define RCC_CR MDY_REG(RCC + 0x00U)      /* 7.3.1 */
#define RCC_PLLCFGR MDY_REG(RCC + 0x04U) /* 7.3.2 */
#define RCC_CFGR MDY_REG(RCC + 0x08U)    /* 7.3.3 */
#define RCC_AHB1ENR MDY_REG(RCC + 0x30U) /* 7.3.10: GPIOA is bit 0, GPIOD bit 3 */
#define RCC_AHB2ENR MDY_REG(RCC + 0x34U) /* 7.3.11: RNG is bit 6; its clock is the PLL's Q output */
#define RCC_APB1ENR MDY_REG(RCC + 0x40U) /* 7.3.13: PWR is bit 28, USART3 bit 18 */
#define RCC_APB2ENR MDY_REG(RCC + 0x44U) /* 7.3.14: USART1 is bit 4 */

/* 3.9.1; RM0385, 3.7.1: flash access control. */
#define FLASH_ACR MDY_REG(0x40023C00U)

#define GPIOA 0x40020000U
#define GPIOD 0x40020C00U

/** Of RCC_CFGR: codes of the dividers of the two peripheral buses. */
enum { MDY_APB_1 = 0, MDY_APB_2 = 4, MDY_APB_4 = 5 };

/** How fast a part may run, and what it needs for that. */
typedef struct {
    uint32_t hse_hz;     /* crystal or clock of the board */
    bool is_bypassed;    /* a clock, as from a Nucleo's ST-LINK: no crystal */
    bool has_over_drive; /* RM0385, 4.1.4: needed above 180 MHz */
    uint32_t core_mhz;   /* PLL: 1 MHz in, twice this in the oscillator, divided by 2 */
    uint32_t pll_q;      /* divider for the clock of the RNG, which may not pass 48 MHz */
    uint32_t voltage;    /* PWR_CR: bits of VOS for scale 1 */
    uint32_t access;     /* FLASH_ACR: wait states, caches */
    uint32_t apb1, apb2; /* codes of the dividers */
} mdy_f4_f7_clock_t;

/**
 * Brings the core to its speed: from the board's oscillator, else from the internal one of 16 MHz through the PLL, else
 * from that alone. Returns the core's Hz.
 */
uint32_t mdy_f4_f7_clock(const mdy_f4_f7_clock_t *clock);

#endif
