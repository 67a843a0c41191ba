/* SPDX-License-Identifier: Apache-2.0 */
/** STM32F405: 168 MHz from a crystal of 8 MHz, USART1 on PA9 (TX) and PA10 (RX). Sections: RM0090. */
#include "stm32/f4_f7/f4_f7.h"
#include "stm32/gpio.h"
#include "stm32/usart.h"

#define ACR_LATENCY_5 5U /* 3.5.1, table 10: 150 to 168 MHz at 2.7 to 3.6 V */
#define ACR_PRFTEN (1U << 8)
#define ACR_ICEN (1U << 9)
#define ACR_DCEN (1U << 10)

#define AHB1ENR_GPIOA (1U << 0)
#define AHB2ENR_RNG (1U << 6)
#define APB2ENR_USART1 (1U << 4)
#define AF_USART1 7U /* 8.3.2, figure 26 */

static const mdy_f4_f7_clock_t speed = {
    .hse_hz = 8000000U,
    .core_mhz = 168U,
    .pll_q = 7U,
    .voltage = 1U << 14, /* 5.4.1: VOS is one bit, set: scale 1 */
    .access = ACR_LATENCY_5 | ACR_PRFTEN | ACR_ICEN | ACR_DCEN,
    .apb1 = MDY_APB_4, /* 42 MHz at most */
    .apb2 = MDY_APB_2, /* 84 MHz at most */
};

void mdy_board_start(void)
{
    const uint32_t hz = mdy_f4_f7_clock(&speed);
    RCC_AHB1ENR |= AHB1ENR_GPIOA;
    RCC_AHB2ENR |= AHB2ENR_RNG;
    RCC_APB2ENR |= APB2ENR_USART1;
    (void)RCC_APB2ENR; /* 7.3.14: the clock is there two cycles later */
    mdy_stm32_alternate(GPIOA, 9U, AF_USART1);
    mdy_stm32_alternate(GPIOA, 10U, AF_USART1);
    mdy_usart_start(hz == speed.core_mhz * 1000000U ? hz / 2U : hz);
}
