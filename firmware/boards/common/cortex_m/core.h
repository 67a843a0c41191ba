/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The processor's own registers. Source: Armv7-M Architecture Reference Manual (DDI 0403), sections in brackets;
 * Armv8-M (DDI 0553) has them at the same addresses.
 */
#ifndef MDY_CORE_H
#define MDY_CORE_H

#include "cortex_m/board.h"

/* [B3.3] SysTick. */
#define SYST_CSR MDY_REG(0xE000E010U)
#define SYST_RVR MDY_REG(0xE000E014U)
#define SYST_CVR MDY_REG(0xE000E018U)
#define SYST_CSR_ENABLE 1U
#define SYST_CSR_TICKINT 2U
#define SYST_CSR_CLKSOURCE 4U /* the processor's clock */
#define SYST_MAX 0x00FFFFFFU

/* [B3.4] NVIC: interrupt set-enable and clear-enable. */
#define NVIC_ISER(n) MDY_REG(0xE000E100U + 4U * (n))
#define NVIC_ICER(n) MDY_REG(0xE000E180U + 4U * (n))

/* [B3.2] System control block. */
#define SCB_VTOR MDY_REG(0xE000ED08U)
#define SCB_AIRCR MDY_REG(0xE000ED0CU)
#define SCB_AIRCR_RESET 0x05FA0004U /* VECTKEY, SYSRESETREQ */
#define SCB_CCR MDY_REG(0xE000ED14U)
#define SCB_CCR_BFHFNMIGN (1U << 8) /* bus faults of data are ignored at the priority of a HardFault */
#define SCB_CCR_DC (1U << 16)
#define SCB_CCR_IC (1U << 17)
#define SCB_CFSR MDY_REG(0xE000ED28U)
#define SCB_CFSR_BUS_DATA 0x00000600U /* IMPRECISERR, PRECISERR */
#define SCB_CFSR_BUS 0x0000FF00U
#define SCB_CPACR MDY_REG(0xE000ED88U)

/* [B4.8], [B3.2.2] Caches: sizes, and maintenance by set and way, by address. */
#define CCSIDR MDY_REG(0xE000ED80U)
#define CSSELR MDY_REG(0xE000ED84U)
#define ICIALLU MDY_REG(0xE000EF50U)
#define DCIMVAC MDY_REG(0xE000EF5CU)
#define DCISW MDY_REG(0xE000EF60U)
#define CACHE_LINE 32U /* bytes, of the Cortex-M7 */

/* [C1.6.2] Debug halting control and status. */
#define DHCSR MDY_REG(0xE000EDF0U)
#define DHCSR_C_DEBUGEN 1U

/** Masks interrupts; the value is for mdy_unmask. */
static inline uint32_t mdy_mask(void)
{
    uint32_t was;
    __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(was)::"memory");
    return was;
}

static inline void mdy_unmask(uint32_t was)
{
    __asm__ volatile("msr primask, %0" ::"r"(was) : "memory");
}

static inline void mdy_barrier(void)
{
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

/** Lets an interrupt through. */
static inline void mdy_enable_interrupt(uint32_t number)
{
    NVIC_ISER(number / 32U) = 1U << (number % 32U);
}

/** Holds an interrupt back. */
static inline void mdy_disable_interrupt(uint32_t number)
{
    NVIC_ICER(number / 32U) = 1U << (number % 32U);
}

/** Resets the system. */
_Noreturn static inline void mdy_reset_system(void)
{
    mdy_barrier();
    SCB_AIRCR = SCB_AIRCR_RESET;
    mdy_barrier();
    for (;;) {
    }
}

/** Turns both caches of a Cortex-M7 on, empty. [B2.2] */
static inline void mdy_start_caches(void)
{
    ICIALLU = 0;
    mdy_barrier();
    SCB_CCR |= SCB_CCR_IC;
    CSSELR = 0; /* data cache, level 1 */
    mdy_barrier();
    const uint32_t sets = ((CCSIDR >> 13) & 0x7FFFU) + 1U;
    const uint32_t ways = ((CCSIDR >> 3) & 0x3FFU) + 1U; /* 4: the way is in bits 31 and 30 */
    for (uint32_t set = 0; set < sets; set++) {
        for (uint32_t way = 0; way < ways; way++) {
            DCISW = set << 5 | way << 30;
        }
    }
    mdy_barrier();
    SCB_CCR |= SCB_CCR_DC;
    mdy_barrier();
}

/** Drops what the data cache of a Cortex-M7 holds of n bytes that nobody has written through it. */
static inline void mdy_forget_cached(uint32_t address, uint32_t n)
{
    mdy_barrier();
    for (uint32_t at = address / CACHE_LINE * CACHE_LINE; at < address + n; at += CACHE_LINE) {
        DCIMVAC = at;
    }
    mdy_barrier();
}

#endif
