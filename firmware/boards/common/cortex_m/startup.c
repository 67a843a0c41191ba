/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Start-up of a Cortex-M board: vectors, memory, clocks, main. Source: Armv7-M ARM (DDI 0403), B1.5.
 *
 * When main returns, the host has ended the program: the board starts anew. So it does after a fault, a stack overflow
 * among them, since the stack is the lowest thing in its RAM; the host notices a restart and goes on from the last
 * commit. With a debugger attached a fault stops there.
 */
#include "cortex_m/core.h"

extern uint32_t mdy_data_load[], mdy_data_start[], mdy_data_end[];
extern uint32_t mdy_bss_start[], mdy_bss_end[];
extern uint32_t mdy_stack_bottom[], mdy_stack_top[];

int main(void);
void mdy_reset(void);
_Noreturn void mdy_start(void);
void mdy_fault(void);
_Noreturn void mdy_fault_end(void);

typedef void (*vector_t)(void);
typedef struct {
    uint32_t *stack_top;
    vector_t system[15];
    vector_t interrupts[MDY_UART_IRQ + 1]; /* the UART's is the last that is used */
} vectors_t;

extern const vectors_t mdy_vectors;

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)

/* Before anything lies on the stack: the memory that holds it may have no clock yet, and a boot loader may have left
 * interrupts on. MDY_MEMORY_CLOCK, a register, then gets MDY_MEMORY_CLOCK_BITS. */
__attribute__((naked)) void mdy_reset(void)
{
    __asm__ volatile(
        "cpsid i\n"
#ifdef MDY_MEMORY_CLOCK
        "ldr r0, =" TEXT(
            MDY_MEMORY_CLOCK) "\n"
                              "ldr r1, =" TEXT(
                                  MDY_MEMORY_CLOCK_BITS) "\n"
                                                         "ldr r2, [r0]\n"
                                                         "orr r2, r1\n"
                                                         "str r2, [r0]\n"
                                                         "ldr r2, [r0]\n" /* the clock is there after a read */
                                                         "dsb\n"
#endif
                                                         "b mdy_start\n");
}

__attribute__((used)) void mdy_start(void)
{
    SCB_VTOR = (uint32_t)(uintptr_t)&mdy_vectors;
#if __ARM_ARCH >= 8
    __asm__ volatile("msr msplim, %0" ::"r"(mdy_stack_bottom));
#endif
    const uint32_t *from = mdy_data_load;
    for (uint32_t *to = mdy_data_start; to < mdy_data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = mdy_bss_start; to < mdy_bss_end; to++) {
        *to = 0;
    }
    mdy_board_start();
    mdy_enable_interrupt(MDY_UART_IRQ);
    __asm__ volatile("cpsie i" ::: "memory");
    (void)main();
    mdy_reset_system();
}

/* Reached from mdy_fault with a fresh stack; needs external linkage for the branch there. */
__attribute__((used)) void mdy_fault_end(void)
{
    if ((DHCSR & DHCSR_C_DEBUGEN) != 0U) {
        __asm__ volatile("bkpt 0");
    }
    mdy_reset_system();
}

/* The stack pointer may be what is broken, so it is set anew before any C runs. */
__attribute__((naked)) void mdy_fault(void)
{
    __asm__ volatile("ldr r0, =mdy_stack_top\n"
                     "mov sp, r0\n"
                     "b mdy_fault_end\n");
}

/* Interrupts other than the UART's stay disabled. */
__attribute__((section(".vectors"), used)) const vectors_t mdy_vectors = {
    .stack_top = mdy_stack_top,
    .system =
        {
            mdy_reset,
            mdy_fault,
            mdy_fault, /* reset, NMI, HardFault */
            mdy_fault,
            mdy_fault,
            mdy_fault, /* MemManage, BusFault, UsageFault */
            mdy_fault,
            0,
            0, /* SecureFault, reserved */
            0,
            mdy_fault,
            mdy_fault, /* reserved, SVCall, DebugMonitor */
            0,
            mdy_fault,
            mdy_isr_systick, /* reserved, PendSV, SysTick */
        },
    .interrupts = {[MDY_UART_IRQ] = mdy_isr_uart},
};
