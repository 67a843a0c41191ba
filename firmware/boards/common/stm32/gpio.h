/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Pins of an STM32. Source: RM0090, 8.4 (RM0383, 8.4; RM0385, 6.4; RM0433, 11.4): the same registers in all of them.
 */
#ifndef MDY_STM32_GPIO_H
#define MDY_STM32_GPIO_H

#include "cortex_m/board.h"

#define GPIO_MODER 0x00U /* 2 bits a pin; 2: alternate function */
#define GPIO_PUPDR 0x0CU /* 2 bits a pin; 1: pull-up */
#define GPIO_AFR 0x20U   /* AFRL, and AFRH behind it: 4 bits a pin */

/** Gives a pin of the port at `port` an alternate function, pulled up: an open RX line is then idle. */
static inline void mdy_stm32_alternate(uint32_t port, uint32_t pin, uint32_t function)
{
    const uint32_t two = 2U * pin, four = 4U * (pin % 8U);
    volatile uint32_t *const afr = &MDY_REG(port + GPIO_AFR + 4U * (pin / 8U));
    *afr = (*afr & ~(0xFU << four)) | function << four;
    MDY_REG(port + GPIO_PUPDR) = (MDY_REG(port + GPIO_PUPDR) & ~(3U << two)) | 1U << two;
    MDY_REG(port + GPIO_MODER) = (MDY_REG(port + GPIO_MODER) & ~(3U << two)) | 2U << two;
}

#endif
