/* SPDX-License-Identifier: Apache-2.0 */
/* Erases sector 5 of an STM32F405, programs four words of it, and sends a dot. RM0090, 3.6, 3.9. */
#include "bare.h"
#include "uart_stm32f4.h"

int main(void)
{
    uart_init(115200);
    REG(0x40023C04) = 0x45670123;
    REG(0x40023C04) = 0xCDEF89AB;
    REG(0x40023C10) = 2u << 8 | 5u << 3 | 2u | 1u << 16;
    while (REG(0x40023C0C) >> 16 & 1u) {
    }
    REG(0x40023C10) = 2u << 8 | 1u;
    for (uint32_t n = 0; n < 4u; n++) {
        REG(0x08020000u + 4u * n) = n + 1u;
        while (REG(0x40023C0C) >> 16 & 1u) {
        }
    }
    REG(0x40023C10) = 1u << 31;
    uart_send('.');
    for (;;) {
        __asm volatile("wfi");
    }
}
