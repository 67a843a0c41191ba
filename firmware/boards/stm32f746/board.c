/* SPDX-License-Identifier: Apache-2.0 */
/**
 * STM32F746 on a NUCLEO-F746ZG: 216 MHz from the ST-LINK's 8 MHz, USART3 on PD8 (TX) and PD9 (RX), which the ST-LINK
 * shows as a serial port. Sections: RM0385.
 */
#include "stm32/f4_f7/f4_f7.h"
#include "stm32/gpio.h"
#include "stm32/usart.h"

/* 3.3.2, table 5: 210 to 216 MHz at 2.7 to 3.6 V. The accelerator (ART) serves the ITCM bus alone, where no code is. */
#define ACR_LATENCY_7 7U
#define ACR_PRFTEN (1U << 8)

#define AHB1ENR_GPIOD (1U << 3)
#define AHB2ENR_RNG (1U << 6)
#define APB1ENR_USART3 (1U << 18)
#define AF_USART3 7U

static const mdy_f4_f7_clock_t speed = {
    .hse_hz = 8000000U,
    .is_bypassed = true,
    .has_over_drive = true,
    .core_mhz = 216U,
    .pll_q = 9U,
    .voltage = 3U << 14, /* 4.4.1: scale 1 */
    .access = ACR_LATENCY_7 | ACR_PRFTEN,
    .apb1 = MDY_APB_4, /* 54 MHz at most */
    .apb2 = MDY_APB_2, /* 108 MHz at most */
};

void mdy_board_start(void)
{
    const uint32_t hz = mdy_f4_f7_clock(&speed);
    mdy_start_caches();
    RCC_AHB1ENR |= AHB1ENR_GPIOD;
    RCC_AHB2ENR |= AHB2ENR_RNG;
    RCC_APB1ENR |= APB1ENR_USART3;
    (void)RCC_APB1ENR; /* the clock is there two cycles later */
    mdy_stm32_alternate(GPIOD, 8U, AF_USART3);
    mdy_stm32_alternate(GPIOD, 9U, AF_USART3);
    mdy_usart_start(hz == speed.core_mhz * 1000000U ? hz / 4U : hz);
}
