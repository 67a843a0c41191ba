/* SPDX-License-Identifier: Apache-2.0 */
/** Time from SysTick: every reading counts on, and an interrupt reads before the counter comes round. */
#include "cortex_m/core.h"

#define MHZ 1000000U

static uint64_t counts;
static uint32_t last, counts_per_us;

static void count_on(void)
{
    const uint32_t now = SYST_CVR;
    counts += (last - now) & SYST_MAX;
    last = now;
}

void mdy_isr_systick(void)
{
    const uint32_t was = mdy_mask();
    count_on();
    mdy_unmask(was);
}

void mdy_time_start(uint32_t hz)
{
    const uint32_t was = mdy_mask();
    const uint32_t us = counts_per_us == 0U ? 0U : mdy_time_us();
    counts_per_us = hz / MHZ;
    SYST_RVR = SYST_MAX;
    SYST_CVR = 0; /* any value clears it; it goes on with SYST_MAX */
    SYST_CSR = SYST_CSR_CLKSOURCE | SYST_CSR_TICKINT | SYST_CSR_ENABLE;
    last = 0;
    counts = (uint64_t)us * counts_per_us;
    mdy_unmask(was);
}

uint32_t mdy_time_us(void)
{
    const uint32_t was = mdy_mask();
    count_on();
    const uint64_t now = counts;
    mdy_unmask(was);
    return (uint32_t)(now / counts_per_us);
}

bool mdy_wait(const volatile uint32_t *reg, uint32_t mask, uint32_t value, uint32_t us)
{
    const uint32_t start = mdy_time_us();
    while ((*reg & mask) != value) {
        if (mdy_time_us() - start > us) {
            return (*reg & mask) == value; /* it may have come while this waited for the clock */
        }
        mdy_port_watchdog();
    }
    return true;
}
