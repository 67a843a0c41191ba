/* SPDX-License-Identifier: Apache-2.0 */
/* Does loads and stores that the test asks for, by code in flash or in RAM. The test writes `ask`, its `kind` last. */
#include "bare.h"

enum { NOTHING, LOAD, STORE, STORE_HALF, STORE_BYTE, COPY, WAIT_CLEAR, WAIT_SET, CALL, MASK, FAULTMASK, LOAD_FOUR };

volatile struct ask {
    uint32_t kind, in_ram, address, value, count;
} ask;
volatile uint32_t result, faults;

#define DO                                                                                                             \
    uint32_t result_of;                                                                                                \
    uintptr_t at = ask.address;                                                                                        \
    switch (ask.kind) {                                                                                                \
    case LOAD:                                                                                                         \
        result = REG(at);                                                                                              \
        break;                                                                                                         \
    case STORE:                                                                                                        \
        REG(at) = ask.value;                                                                                           \
        break;                                                                                                         \
    case STORE_HALF:                                                                                                   \
        *(volatile uint16_t *)at = (uint16_t)ask.value;                                                                \
        break;                                                                                                         \
    case STORE_BYTE:                                                                                                   \
        *(volatile uint8_t *)at = (uint8_t)ask.value;                                                                  \
        break;                                                                                                         \
    case COPY:                                                                                                         \
        for (uint32_t n = 0; n < ask.count; n++) {                                                                     \
            REG(at + 4u * n) = ask.value + n;                                                                          \
        }                                                                                                              \
        break;                                                                                                         \
    case WAIT_CLEAR:                                                                                                   \
        for (result = 0; result < ask.count && (REG(at) & ask.value); result++) {                                      \
        }                                                                                                              \
        break;                                                                                                         \
    case WAIT_SET:                                                                                                     \
        for (result = 0; result < ask.count && (REG(at) & ask.value) != ask.value; result++) {                         \
        }                                                                                                              \
        break;                                                                                                         \
    case CALL:                                                                                                         \
        result = ((uint32_t (*)(uint32_t, uint32_t, uint32_t, uint32_t))at)(arguments[0], arguments[1], arguments[2],  \
                                                                            arguments[3]);                             \
        break;                                                                                                         \
    case MASK:                                                                                                         \
        if (ask.value) {                                                                                               \
            __asm volatile("cpsid i" ::: "memory");                                                                    \
        } else {                                                                                                       \
            __asm volatile("cpsie i" ::: "memory");                                                                    \
        }                                                                                                              \
        break;                                                                                                         \
    case FAULTMASK:                                                                                                    \
        __asm volatile("msr faultmask, %0" ::"r"(ask.value) : "memory");                                               \
        break;                                                                                                         \
    case LOAD_FOUR: /* all in one block of code */                                                                     \
        __asm volatile("ldr r1, [%1]\n ldr r2, [%1, #4]\n ldr r3, [%1, #8]\n ldr %0, [%1, #12]\n nop"                  \
                       : "=&r"(result_of)                                                                              \
                       : "r"(at)                                                                                       \
                       : "r1", "r2", "r3", "memory");                                                                  \
        result = result_of;                                                                                            \
        break;                                                                                                         \
    default:                                                                                                           \
        break;                                                                                                         \
    }                                                                                                                  \
    ask.kind = NOTHING

volatile uint32_t arguments[4];

__attribute__((noinline)) static void do_in_flash(void)
{
    DO;
}
RAMCODE static void do_in_ram(void)
{
    DO;
}

/* Steps over the instruction of a precise fault. */
void fault(uint32_t *frame);
void fault(uint32_t *frame)
{
    faults++;
    if (REG(0xE000ED28) & 1u << 9) {
        uint16_t code = *(uint16_t *)frame[6];
        frame[6] += (code >> 11) >= 0x1du ? 4u : 2u;
    }
    REG(0xE000ED28) = REG(0xE000ED28);
}

__attribute__((naked)) void hard_fault(void)
{
    __asm volatile("mov r0, sp\n b fault");
}

RAMCODE static void loop(void)
{
    for (;;) {
        if (ask.kind != NOTHING) {
            if (ask.in_ram) {
                do_in_ram();
            } else {
                do_in_flash();
            }
        }
    }
}

int main(void)
{
    loop();
    return 0;
}
