/* SPDX-License-Identifier: Apache-2.0 */
/* What the core promises of exceptions: results for the test to look at. */
#include "bare.h"

enum { LOW = 10, HIGH = 11, MIDDLE = 12 }; /* interrupts that nothing else raises */

volatile uint32_t done, ticks, tick_ipsr, calls, pendsvs, nested, order[8], orders, svc_ipsr, masked_ticks, late_ticks,
    basepri_low, basepri_after, psp_ticks, psp_kept, slept, cycles, flags_kept, counted, icsr_active, msp_after,
    odd_stack, preempted, undisturbed, disturbed, ticks_meanwhile;
volatile float in_handler = 1.0f, sum;
static uint32_t process_stack[128];

static uint32_t ipsr(void)
{
    uint32_t value;
    __asm volatile("mrs %0, ipsr" : "=r"(value));
    return value;
}

void systick(void)
{
    ticks++;
    tick_ipsr = ipsr();
    in_handler = in_handler * 1.5f + 0.25f; /* spoils the float registers unless entry keeps them */
    if (in_handler > 1e6f) {
        in_handler = 1.0f;
    }
}

void svcall(void)
{
    calls++;
    svc_ipsr = ipsr();
}

void pendsv(void)
{
    pendsvs++;
}

void interrupt(void)
{
    uint32_t number = ipsr() - 16u;
    if (number == LOW) {
        REG(0xE000E200) = 1u << HIGH; /* preempts */
        __asm volatile("dsb\n isb\n nop" ::: "memory");
        for (volatile int n = 0; n < 20; n++) {
        }
        nested |= orders == 2u;
        icsr_active = REG(0xE000ED04) & 0x1FFu;
    }
    if (number == HIGH) {
        REG(0xE000E200) = 1u << MIDDLE; /* waits until this one is over */
        __asm volatile("dsb\n isb\n nop" ::: "memory");
        uint32_t before = orders;
        for (volatile int n = 0; n < 20; n++) {
        }
        preempted |= orders != before;
    }
    order[orders++ & 7u] = number;
}

static void wait_ticks(uint32_t count)
{
    for (uint32_t until = ticks + count; ticks != until;) {
    }
}

/* Conditional instructions, flags, multiplications and floats: what it returns does not depend on interrupts. */
__attribute__((noinline)) static uint32_t work(void)
{
    uint32_t sum_of = 1;
    float x = 1.0f;
    for (uint32_t n = 0; n < 20000u; n++) {
        __asm volatile(""); /* or the compiler would call it once */
        uint64_t wide = (uint64_t)sum_of * (n | 1u) + (sum_of >> 7);
        sum_of = (uint32_t)(wide >> 32) ^ (uint32_t)wide;
        sum_of += n & 4u ? 3u : sum_of & 1u ? 5u : 11u;
        x = x > 100.0f ? x * 0.25f : x * 1.25f + (float)(n & 3u);
    }
    return sum_of ^ (uint32_t)(x * 65536.0f);
}

int main(void)
{
    undisturbed = work();
    REG(0xE000EDFC) |= 1u << 24; /* DEMCR.TRCENA */
    REG(0xE0001000) |= 1u;       /* DWT_CTRL.CYCCNTENA */
    REG(0xE000E014) = 999;
    REG(0xE000E018) = 0;
    REG(0xE000E010) = 7;

    /* Floats and flags of the thread live through hundreds of ticks. */
    float total = 0.0f;
    uint32_t flags = 0;
    for (uint32_t n = 0; ticks < 100u; n++) {
        total += 0.5f;
        if (n % 3u == 0u && n % 7u != 0u) {
            flags += n ^ 5u;
        } else {
            flags -= n;
        }
        sum = total - 0.5f * (float)(n + 1u);
        if (sum != 0.0f) {
            done = 99;
        }
        if (n > 1000000u) {
            break;
        }
    }
    flags_kept = flags != 0u;

    REG(0xE000E014) = 210; /* hundreds of cycles and no multiple of the loop's */
    REG(0xE000E018) = 0;
    uint32_t begun = ticks;
    disturbed = work();
    ticks_meanwhile = ticks - begun;
    REG(0xE000E014) = 999;
    REG(0xE000E018) = 0;

    __asm volatile("svc 0");
    REG(0xE000ED04) = 1u << 28;
    __asm volatile("dsb\n isb" ::: "memory");
    for (volatile int n = 0; n < 20; n++) {
    }

    /* Priorities: 10 is entered first, 11 preempts it. */
    *(volatile uint8_t *)(0xE000E400u + LOW) = 0xC0;
    *(volatile uint8_t *)(0xE000E400u + HIGH) = 0x40;
    *(volatile uint8_t *)(0xE000E400u + MIDDLE) = 0x80;
    enable_interrupt(LOW);
    enable_interrupt(HIGH);
    enable_interrupt(MIDDLE);
    REG(0xE000E200) = 1u << LOW;
    __asm volatile("dsb\n isb" ::: "memory");
    for (volatile int n = 0; n < 100; n++) {
    }

    /* BASEPRI holds 10 back, not 11. */
    __asm volatile("msr basepri, %0" ::"r"(0x80));
    uint32_t before = orders;
    REG(0xE000E200) = 1u << LOW;
    for (volatile int n = 0; n < 100; n++) {
    }
    basepri_low = orders - before;
    __asm volatile("msr basepri, %0" ::"r"(0));
    for (volatile int n = 0; n < 2000; n++) {
    }
    basepri_after = orders - before;

    /* PRIMASK: the tick is late, not lost. */
    __asm volatile("cpsid i" ::: "memory");
    before = ticks;
    for (volatile int n = 0; n < 5000; n++) {
    }
    counted = REG(0xE000E010) >> 16 & 1u;
    masked_ticks = ticks - before;
    __asm volatile("cpsie i" ::: "memory");
    for (volatile int n = 0; n < 1000; n++) {
    }
    late_ticks = ticks - before;

    /* On the process stack. */
    uint32_t main_stack, control;
    __asm volatile("mrs %0, msp" : "=r"(main_stack));
    before = ticks;
    __asm volatile("msr psp, %0\n mrs r0, control\n orr r0, r0, #2\n msr control, r0\n isb" ::"r"(&process_stack[128])
                   : "r0");
    wait_ticks(3);
    __asm volatile("mrs %0, control" : "=r"(control));
    psp_kept = control >> 1 & 1u;
    __asm volatile("mrs r0, control\n bic r0, r0, #2\n msr control, r0\n isb" ::: "r0");
    psp_ticks = ticks - before;
    uint32_t msp;
    __asm volatile("mrs %0, msp" : "=r"(msp));
    msp_after = msp == main_stack;

    /* On a stack that is not aligned to 8 bytes. */
    uint32_t top, bottom;
    __asm volatile("mov %0, sp\n sub sp, #4\n push {r0, r1, r2, r3}\n"
                   "1: ldr r2, [%2]\n cmp r2, %3\n bne 1b\n pop {r0, r1, r2, r3}\n add sp, #4\n mov %1, sp"
                   : "=&r"(top), "=&r"(bottom)
                   : "r"(&ticks), "r"(ticks + 3u)
                   : "r2", "cc", "memory");
    odd_stack = top == bottom;

    /* WFI ends with a tick. */
    before = ticks;
    for (uint32_t n = 0; n < 5u; n++) {
        __asm volatile("wfi");
    }
    slept = ticks - before;
    before = REG(0xE0001004);
    wait_ticks(10);
    cycles = REG(0xE0001004) - before;
    done = done ? done : 1u;
    return 0;
}
