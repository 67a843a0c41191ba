/* SPDX-License-Identifier: Apache-2.0 */
/**
 * STM32H743 on a NUCLEO-H743ZI: 400 MHz from the ST-LINK's 8 MHz, USART3 on PD8 (TX) and PD9 (RX), which the ST-LINK
 * shows as a serial port. Sections: RM0433.
 */
#include "cortex_m/core.h"
#include "stm32/gpio.h"
#include "stm32/usart.h"

#define MHZ 1000000U
#define HSI_HZ (64U * MHZ)
#define HSE_HZ (8U * MHZ)
#define CORE_HZ (400U * MHZ)
#define START_US 100000U

/* 8.7 RCC. */
#define RCC 0x58024400U
#define RCC_CR MDY_REG(RCC + 0x00U)
#define RCC_CFGR MDY_REG(RCC + 0x10U)
#define RCC_D1CFGR MDY_REG(RCC + 0x18U)
#define RCC_D2CFGR MDY_REG(RCC + 0x1CU)
#define RCC_D3CFGR MDY_REG(RCC + 0x20U)
#define RCC_PLLCKSELR MDY_REG(RCC + 0x28U)
#define RCC_PLLCFGR MDY_REG(RCC + 0x2CU)
#define RCC_PLL1DIVR MDY_REG(RCC + 0x30U)
#define RCC_AHB2ENR MDY_REG(RCC + 0xDCU)
#define RCC_AHB4ENR MDY_REG(RCC + 0xE0U)
#define RCC_APB1LENR MDY_REG(RCC + 0xE8U)

#define CR_HSI48ON (1U << 12) /* clock of the RNG after a reset */
#define CR_HSEON (1U << 16)
#define CR_HSERDY (1U << 17)
#define CR_HSEBYP (1U << 18)
#define CR_PLL1ON (1U << 24)
#define CR_PLL1RDY (1U << 25)
#define CFGR_SW_PLL1 3U
#define CFGR_SWS (7U << 3)
#define CFGR_SWS_PLL1 (3U << 3)
#define D1CFGR_HPRE_2 8U
#define D1CFGR_D1PPRE_2 (4U << 4)
#define D2CFGR_PPRE_2 (4U << 4 | 4U << 8)
#define D3CFGR_D3PPRE_2 (4U << 4)
#define PLLCKSELR_HSI 0U
#define PLLCKSELR_HSE 2U
#define PLLCKSELR_DIVM1(m) ((m) << 4)
#define PLLCFGR_RGE_4_8 (2U << 2) /* MHz into PLL1; its oscillator in the wide range */
#define PLLCFGR_DIVP1EN (1U << 16)
#define PLL1DIVR(n, p, q, r) (((n) - 1U) | ((p) - 1U) << 9 | ((q) - 1U) << 16 | ((r) - 1U) << 24)
#define AHB2ENR_RNG (1U << 6)
#define AHB4ENR_GPIOD (1U << 3)
#define APB1LENR_USART3 (1U << 18)

/* 6.8 PWR. */
#define PWR_CSR1 MDY_REG(0x58024804U)
#define PWR_CR3 MDY_REG(0x5802480CU)
#define PWR_D3CR MDY_REG(0x58024818U)
#define CSR1_ACTVOSRDY (1U << 13)
#define CR3_SUPPLY 7U /* BYPASS, LDOEN, SCUEN; written once after power-on */
#define CR3_LDO (1U << 1 | 1U << 2)
#define D3CR_VOS_1 (3U << 14)
#define D3CR_VOSRDY (1U << 13)

/* 4.9.1; 4.3.8, table 17: 2 wait states and WRHIGHFREQ 2 for 185 to 210 MHz on the AXI bus at scale 1. */
#define FLASH_ACR MDY_REG(0x52002000U)
#define ACR_200_MHZ (2U | 2U << 4)

#define GPIOD 0x58020C00U
#define AF_USART3 7U

/* The core's Hz: 400 MHz from the ST-LINK's clock or from the internal one of 64 MHz, else that alone. */
static uint32_t start_clock(void)
{
    mdy_time_start(HSI_HZ); /* which runs after a reset */
    PWR_CR3 = (PWR_CR3 & ~CR3_SUPPLY) | CR3_LDO;
    (void)mdy_wait(&PWR_CSR1, CSR1_ACTVOSRDY, CSR1_ACTVOSRDY, START_US);
    PWR_D3CR = D3CR_VOS_1;
    if (!mdy_wait(&PWR_D3CR, D3CR_VOSRDY, D3CR_VOSRDY, START_US)) {
        return HSI_HZ;
    }
    RCC_CR |= CR_HSEBYP;
    RCC_CR |= CR_HSEON;
    const bool has_hse = mdy_wait(&RCC_CR, CR_HSERDY, CR_HSERDY, START_US);
    if (!has_hse) {
        RCC_CR &= ~CR_HSEON;
    }
    /* 4 MHz into the PLL, 800 MHz in its oscillator. */
    RCC_PLLCKSELR = has_hse ? PLLCKSELR_HSE | PLLCKSELR_DIVM1(HSE_HZ / (4U * MHZ))
                            : PLLCKSELR_HSI | PLLCKSELR_DIVM1(HSI_HZ / (4U * MHZ));
    RCC_PLLCFGR = PLLCFGR_RGE_4_8 | PLLCFGR_DIVP1EN;
    RCC_PLL1DIVR = PLL1DIVR(200U, 2U, 4U, 4U);
    RCC_CR |= CR_PLL1ON;
    if (!mdy_wait(&RCC_CR, CR_PLL1RDY, CR_PLL1RDY, START_US)) {
        return HSI_HZ;
    }
    FLASH_ACR = ACR_200_MHZ;
    if (FLASH_ACR != ACR_200_MHZ) {
        return HSI_HZ; /* with too few wait states the core would read wrong code */
    }
    RCC_D1CFGR = D1CFGR_HPRE_2 | D1CFGR_D1PPRE_2; /* buses: 200 MHz, peripherals 100 MHz */
    RCC_D2CFGR = D2CFGR_PPRE_2;
    RCC_D3CFGR = D3CFGR_D3PPRE_2;
    RCC_CFGR |= CFGR_SW_PLL1;
    if (!mdy_wait(&RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL1, START_US)) {
        RCC_CFGR &= ~CFGR_SW_PLL1;
        RCC_D1CFGR = 0;
        RCC_D2CFGR = 0;
        RCC_D3CFGR = 0;
        return HSI_HZ;
    }
    mdy_time_start(CORE_HZ);
    return CORE_HZ;
}

void mdy_board_start(void)
{
    const uint32_t hz = start_clock();
    mdy_start_caches();
    RCC_CR |= CR_HSI48ON;
    RCC_AHB2ENR |= AHB2ENR_RNG;
    RCC_AHB4ENR |= AHB4ENR_GPIOD;
    RCC_APB1LENR |= APB1LENR_USART3;
    (void)RCC_APB1LENR; /* the clock is there two cycles later */
    mdy_stm32_alternate(GPIOD, 8U, AF_USART3);
    mdy_stm32_alternate(GPIOD, 9U, AF_USART3);
    mdy_usart_start(hz == CORE_HZ ? CORE_HZ / 4U : HSI_HZ);
}
