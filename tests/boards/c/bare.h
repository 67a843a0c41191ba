/* SPDX-License-Identifier: Apache-2.0 */
/* A program without a library, for the tests of the emulated parts: start-up and access to registers. */
#ifndef BARE_H
#define BARE_H

#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define RAMCODE __attribute__((section(".ramcode"), noinline, long_call))

enum { VECTORS = 16 + 150 };

typedef void (*handler)(void);

int main(void);

/* Handlers that a program may define. */
void hard_fault(void);
void svcall(void);
void pendsv(void);
void systick(void);
void interrupt(void); /* of every number */

static inline void enable_interrupt(uint32_t number)
{
    REG(0xE000E100u + number / 32u * 4u) = 1u << (number % 32u);
}

#endif
