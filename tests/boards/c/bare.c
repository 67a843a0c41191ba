/* SPDX-License-Identifier: Apache-2.0 */
#include "bare.h"

extern uint32_t bare_stack, data_from, data_to, data_end, bss_to, bss_end;

void reset(void);
static void stop(void)
{
    for (;;) {
    }
}

__attribute__((weak, alias("stop_weak"))) void hard_fault(void);
__attribute__((weak, alias("stop_weak"))) void svcall(void);
__attribute__((weak, alias("stop_weak"))) void pendsv(void);
__attribute__((weak, alias("stop_weak"))) void systick(void);
__attribute__((weak, alias("stop_weak"))) void interrupt(void);
void stop_weak(void);
void stop_weak(void)
{
    stop();
}

__attribute__((section(".vectors"), used)) static const handler vectors[VECTORS] = {
    [0] = (handler)&bare_stack,
    [1] = reset,
    [3] = hard_fault,
    [5] = hard_fault,
    [11] = svcall,
    [14] = pendsv,
    [15] = systick,
    [16 ... VECTORS - 1] = interrupt,
};

#ifdef IMAGE_DEF /* RP2350 datasheet, 5.9.5.1 */
__attribute__((section(".image_def"), used)) static const uint32_t image_def[] = {
    0xffffded3u, 0x10210142u, 0x000001ffu, 0u, 0xab123579u,
};
#endif

void reset(void)
{
    volatile uint32_t *from = &data_from;
    for (volatile uint32_t *to = &data_to; to != &data_end; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = &bss_to; to != &bss_end; to++) {
        *to = 0;
    }
#ifndef NO_FPU
    REG(0xE000ED88u) |= 15u << 20;
    __asm volatile("dsb\n isb" ::: "memory");
#endif
    (void)main();
    stop();
}
