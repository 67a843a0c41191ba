/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Start-up for QEMU's MPS2 and MPS3 machines: vectors, memory, main, exit status.
 *
 * The exit status of QEMU is what main returns. An exception ends with 64 + its number, 67 for
 * a HardFault, which is also what a stack overflow comes to: the stack is the lowest thing in RAM.
 */
#include "semihosting.h"

#define EXIT_EXCEPTION 64U

extern uint32_t mdy_data_load[], mdy_data_start[], mdy_data_end[];
extern uint32_t mdy_bss_start[], mdy_bss_end[];
extern uint32_t mdy_stack_top[];

int main(void);
void mdy_reset(void);
_Noreturn void mdy_start(void);
void mdy_fault(void);
_Noreturn void mdy_fault_exit(void);

/* Before any C runs: loops of it may use vectors, which are coprocessors 10 and 11 (CPACR, full access). */
__attribute__((naked)) void mdy_reset(void)
{
    __asm__ volatile(
#ifdef __ARM_FEATURE_MVE
        "ldr r0, =0xE000ED88\n"
        "ldr r1, [r0]\n"
        "orr r1, r1, #0xF00000\n"
        "str r1, [r0]\n"
        "dsb\n"
        "isb\n"
#endif
        "b mdy_start\n");
}

__attribute__((used)) void mdy_start(void)
{
    const uint32_t *from = mdy_data_load;
    for (uint32_t *to = mdy_data_start; to < mdy_data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = mdy_bss_start; to < mdy_bss_end; to++) {
        *to = 0;
    }
    semihosting_exit((uint32_t)main());
}

/* Reached from mdy_fault with a fresh stack; needs external linkage for the branch there. */
__attribute__((used)) void mdy_fault_exit(void)
{
    uint32_t exception;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    semihosting_exit(EXIT_EXCEPTION + exception);
}

/* The stack pointer may be what is broken, so it is set anew before any C runs. */
__attribute__((naked)) void mdy_fault(void)
{
    __asm__ volatile("ldr r0, =mdy_stack_top\n"
                     "mov sp, r0\n"
                     "b mdy_fault_exit\n");
}

typedef void (*vector_t)(void);

/* External interrupts stay disabled, so the table ends with the system exceptions. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack_top;
    vector_t handlers[15];
} vectors = {
    .stack_top = mdy_stack_top,
    .handlers =
        {
            /* clang-format off */
            mdy_reset, mdy_fault, mdy_fault, /* reset, NMI, HardFault */
            mdy_fault, mdy_fault, mdy_fault, /* MemManage, BusFault, UsageFault */
            0,         0,         0,         /* reserved */
            0,         mdy_fault, mdy_fault, /* reserved, SVCall, DebugMonitor */
            0,         mdy_fault, mdy_fault, /* reserved, PendSV, SysTick */
            /* clang-format on */
        },
};
