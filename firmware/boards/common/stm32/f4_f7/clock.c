/* SPDX-License-Identifier: Apache-2.0 */
#include "stm32/f4_f7/f4_f7.h"

#define HSI_HZ 16000000U
#define MHZ 1000000U

#define CR_HSION (1U << 0)
#define CR_HSEON (1U << 16)
#define CR_HSERDY (1U << 17)
#define CR_HSEBYP (1U << 18)
#define CR_PLLON (1U << 24)
#define CR_PLLRDY (1U << 25)

#define CFGR_SW_PLL 2U
#define CFGR_SWS (3U << 2)
#define CFGR_SWS_PLL (2U << 2)

#define PLLCFGR_N(n) ((n) << 6)
#define PLLCFGR_P_2 (0U << 16)
#define PLLCFGR_HSE (1U << 22)
#define PLLCFGR_Q(q) ((q) << 24)

#define APB1ENR_PWR (1U << 28)

/* 5.4 PWR; RM0385, 4.4. */
#define PWR_CR MDY_REG(0x40007000U)
#define PWR_CSR MDY_REG(0x40007004U)
#define PWR_ODEN (1U << 16) /* over-drive: RM0385, 4.4.1 and 4.4.2 */
#define PWR_ODSWEN (1U << 17)

/* Data sheets: HSE start-up 2 ms typical; PLL lock 300 us at most. */
#define HSE_US 100000U
#define PLL_US 10000U

static bool start_oscillator(const mdy_f4_f7_clock_t *clock)
{
    RCC_CR |= clock->is_bypassed ? CR_HSEBYP : 0U; /* before it is on */
    RCC_CR |= CR_HSEON;
    if (mdy_wait(&RCC_CR, CR_HSERDY, CR_HSERDY, HSE_US)) {
        return true;
    }
    RCC_CR &= ~CR_HSEON;
    return false;
}

/* RM0385, 5.2 ("Entering Over-drive mode"): between PLL on and the switch to it. */
static bool start_over_drive(void)
{
    PWR_CR |= PWR_ODEN;
    if (!mdy_wait(&PWR_CSR, PWR_ODEN, PWR_ODEN, PLL_US)) {
        return false;
    }
    PWR_CR |= PWR_ODSWEN;
    return mdy_wait(&PWR_CSR, PWR_ODSWEN, PWR_ODSWEN, PLL_US);
}

uint32_t mdy_f4_f7_clock(const mdy_f4_f7_clock_t *clock)
{
    mdy_time_start(HSI_HZ); /* which runs after a reset */
    RCC_APB1ENR |= APB1ENR_PWR;
    (void)RCC_APB1ENR; /* the clock is there two cycles later */
    PWR_CR |= clock->voltage;
    const bool has_hse = start_oscillator(clock);
    const uint32_t divider = (has_hse ? clock->hse_hz : HSI_HZ) / MHZ;
    RCC_PLLCFGR = divider | PLLCFGR_N(2U * clock->core_mhz) | PLLCFGR_P_2 | (has_hse ? PLLCFGR_HSE : 0U) |
                  PLLCFGR_Q(clock->pll_q);
    RCC_CR |= CR_PLLON;
    if (!mdy_wait(&RCC_CR, CR_PLLRDY, CR_PLLRDY, PLL_US) || (clock->has_over_drive && !start_over_drive())) {
        return HSI_HZ;
    }
    FLASH_ACR = clock->access;
    if (FLASH_ACR != clock->access) {
        return HSI_HZ; /* with too few wait states the core would read wrong code */
    }
    RCC_CFGR = clock->apb1 << 10 | clock->apb2 << 13;
    RCC_CFGR |= CFGR_SW_PLL;
    if (!mdy_wait(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL, PLL_US)) {
        RCC_CFGR = 0;
        return HSI_HZ;
    }
    mdy_time_start(clock->core_mhz * MHZ);
    return clock->core_mhz * MHZ;
}
