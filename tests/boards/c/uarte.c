/* SPDX-License-Identifier: Apache-2.0 */
/* Sends back blocks of 4 characters, each plus 1, with UARTE0 of an nRF52840. Product specification, 6.34. */
#include "bare.h"

#define UARTE(offset) REG(0x40002000u + (offset))

static volatile uint8_t in[4], out[4];
volatile uint32_t ready, blocks;

void interrupt(void)
{
    UARTE(0x110) = 0; /* ENDRX */
    for (uint32_t n = 0; n < UARTE(0x53C); n++) {
        out[n] = (uint8_t)(in[n] + 1u);
    }
    blocks++;
    UARTE(0x000) = 1;
    UARTE(0x544) = (uint32_t)(uintptr_t)out;
    UARTE(0x548) = 4;
    UARTE(0x120) = 0;
    UARTE(0x008) = 1;
}

int main(void)
{
    UARTE(0x50C) = 6;
    UARTE(0x514) = 8;
    UARTE(0x524) = 0x01D60000;
    UARTE(0x500) = 8;
    UARTE(0x304) = 1u << 4;
    UARTE(0x534) = (uint32_t)(uintptr_t)in;
    UARTE(0x538) = 4;
    UARTE(0x000) = 1;
    enable_interrupt(2);
    ready = 1;
    for (;;) {
        __asm volatile("wfi");
    }
}
