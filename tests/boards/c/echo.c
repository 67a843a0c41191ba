/* SPDX-License-Identifier: Apache-2.0 */
/* Sends back each character plus 1. Characters come by interrupt, and leave by polling. */
#include "bare.h"
#include UART_HEADER

enum { ROOM = 1024 };

static volatile uint8_t ring[ROOM];
static volatile uint32_t head;
static uint32_t tail;
volatile uint32_t ready, hold, interrupts, idle;

void interrupt(void)
{
    interrupts++;
    while (uart_received()) {
        ring[head % ROOM] = uart_take();
        head++;
    }
}

int main(void)
{
    uart_init(BAUD);
    enable_interrupt(UART_IRQ);
    ready = 1;
    for (;;) {
        if (hold) { /* characters come meanwhile */
            __asm volatile("cpsid i" ::: "memory");
            while (hold) {
                hold--;
            }
            __asm volatile("cpsie i" ::: "memory");
        }
        if (tail != head) {
            idle = 0;
            while (!uart_empty()) {
            }
            uart_send((uint8_t)(ring[tail % ROOM] + 1u));
            tail++;
        } else {
            idle = (uint32_t)uart_idle();
        }
    }
}
