/* SPDX-License-Identifier: Apache-2.0 */
/** STM32F411 on a Black Pill: 100 MHz from a crystal of 25 MHz, USART1 on PA9 (TX), PA10 (RX). Sections: RM0383. */
#include "stm32/f4_f7/f4_f7.h"
#include "stm32/gpio.h"
#include "stm32/usart.h"

#define ACR_LATENCY_3 3U /* 3.4.1, table 5: 90 to 100 MHz at 2.7 to 3.6 V */
#define ACR_PRFTEN (1U << 8)
#define ACR_ICEN (1U << 9)
#define ACR_DCEN (1U << 10)

#define AHB1ENR_GPIOA (1U << 0)
#define APB2ENR_USART1 (1U << 4)
#define AF_USART1 7U

static const mdy_f4_f7_clock_t speed = {
    .hse_hz = 25000000U,
    .core_mhz = 100U,
    .pll_q = 5U,
    .voltage = 3U << 14, /* 5.4.1: scale 1 */
    .access = ACR_LATENCY_3 | ACR_PRFTEN | ACR_ICEN | ACR_DCEN,
    .apb1 = MDY_APB_2, /* 50 MHz at most */
    .apb2 = MDY_APB_1, /* 100 MHz at most */
};

void mdy_board_start(void)
{
    const uint32_t hz = mdy_f4_f7_clock(&speed);
    RCC_AHB1ENR |= AHB1ENR_GPIOA;
    RCC_APB2ENR |= APB2ENR_USART1;
    (void)RCC_APB2ENR; /* the clock is there two cycles later */
    mdy_stm32_alternate(GPIOA, 9U, AF_USART1);
    mdy_stm32_alternate(GPIOA, 10U, AF_USART1);
    mdy_usart_start(hz);
}
