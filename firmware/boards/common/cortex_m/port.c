/* SPDX-License-Identifier: Apache-2.0 */
/** The port of every Cortex-M board: link, flash of the banks, time, stack. Parts and boards supply board.h. */
#include <string.h>

#include "cortex_m/core.h"
#include "flash_geometry.h"

/* What comes while a step runs: a repeated request; long frames are sent while the program waits. A power of two. */
#define RING_BYTES 256U
#define SEND_US 50000U /* for one byte: 1200 baud take 9 ms */

#define TICKS_PER_SECOND 1000000U

extern uint8_t mdy_stack_bottom[], mdy_stack_top[];
extern uint8_t mdy_data_start[], mdy_data_end[], mdy_bss_start[], mdy_bss_end[];
extern uint8_t mdy_areas_bytes[]; /* the address is the number */
extern const uint8_t mdy_banks[]; /* the first reserved sector */

static const mdy_flash_run_t flash_runs[] = {MDY_FLASH_RUNS};
static const mdy_flash_geometry_t geometry = {
    .runs = flash_runs,
    .run_count = sizeof flash_runs / sizeof flash_runs[0],
    .unit_bytes = MDY_FLASH_UNIT_BYTES,
};

static volatile uint8_t ring[RING_BYTES];
static volatile uint32_t ring_in, ring_out; /* bytes ever put in and taken out */

/* Keeps what the UART has. What finds no room stays there, and its interrupt waits for room; if the UART then loses
 * bytes, the frame's CRC tells. Interrupts are masked, or this is one. */
static void fill_ring(void)
{
    uint8_t byte;
    while (ring_in - ring_out < RING_BYTES) {
        if (!mdy_uart_take(&byte)) {
            return;
        }
        ring[ring_in % RING_BYTES] = byte;
        ring_in = ring_in + 1U;
    }
    mdy_disable_interrupt(MDY_UART_IRQ);
}

void mdy_isr_uart(void)
{
    fill_ring();
}

static int32_t receive(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    uint32_t got = 0;
    while (ring_in == ring_out) {
        /* Also without the interrupt: an application may have masked it. */
        const uint32_t was = mdy_mask();
        fill_ring();
        mdy_unmask(was);
        mdy_port_watchdog();
    }
    while (got < n && ring_in != ring_out) {
        dst[got++] = ring[ring_out % RING_BYTES];
        ring_out = ring_out + 1U;
    }
    mdy_enable_interrupt(MDY_UART_IRQ);
    return (int32_t)got;
}

static mdy_status_t send(void *context, const uint8_t *src, uint32_t n)
{
    (void)context;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t start = mdy_time_us();
        while (!mdy_uart_put(src[i])) {
            if (mdy_time_us() - start > SEND_US) {
                return MDY_LINK;
            }
            mdy_port_watchdog();
        }
    }
    return MDY_OK;
}

/* Whether n bytes at an offset lie in the reserved sectors. */
static bool is_reserved(uint32_t offset, uint32_t n)
{
    return offset <= MDY_FLASH_BYTES && n <= MDY_FLASH_BYTES - offset;
}

static uint32_t address_of(uint32_t offset)
{
    return (uint32_t)(uintptr_t)mdy_banks + offset;
}

static mdy_status_t read_flash(void *context, uint32_t address, void *dst, uint32_t n)
{
    (void)context;
    return is_reserved(address, n) ? mdy_part_read(address_of(address), dst, n) : MDY_ARGUMENT;
}

static mdy_status_t erase_sector(void *context, uint32_t address)
{
    (void)context;
    uint32_t start = 0;
    for (uint32_t run = 0; run < geometry.run_count; run++) {
        for (uint32_t i = 0; i < flash_runs[run].count; i++) {
            if (start == address) {
                return mdy_part_erase(address_of(address));
            }
            start += flash_runs[run].bytes;
        }
    }
    return MDY_ARGUMENT;
}

static mdy_status_t program_units(void *context, uint32_t address, const void *src, uint32_t n)
{
    (void)context;
    if (!is_reserved(address, n) || address % MDY_FLASH_UNIT_BYTES != 0U || n % MDY_FLASH_UNIT_BYTES != 0U) {
        return MDY_ARGUMENT;
    }
    return mdy_part_program(address_of(address), src, n);
}

static const uint8_t *map_flash(void *context)
{
    (void)context;
    return mdy_banks;
}

static mdy_status_t draw_random(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    return mdy_part_random(dst, n) ? MDY_OK : MDY_STATE;
}

static uint32_t count_ticks(void *context)
{
    (void)context;
    return mdy_time_us();
}

/* Interrupts push onto the same stack, so none may come while what is below the pointer is painted. The pointer is
 * volatile so that the loop does not become a call to memset, whose own frame would stand in the painted memory. */
static void paint_stack(void *context, uint8_t pattern)
{
    (void)context;
    const uint32_t was = mdy_mask();
    uint8_t *stack;
    __asm__ volatile("mov %0, sp" : "=r"(stack));
    for (volatile uint8_t *at = mdy_stack_bottom; at < stack; at++) {
        *at = pattern;
    }
    mdy_unmask(was);
}

static uint32_t mark_stack(void *context, uint8_t pattern)
{
    (void)context;
    const volatile uint8_t *at = mdy_stack_bottom;
    while (at < mdy_stack_top && *at == pattern) {
        at++;
    }
    return (uint32_t)(mdy_stack_top - at);
}

static uint32_t count_static_bytes(void *context)
{
    (void)context;
    return (uint32_t)(mdy_data_end - mdy_data_start) + (uint32_t)(mdy_bss_end - mdy_bss_start) +
           (uint32_t)(uintptr_t)mdy_areas_bytes;
}

static const mdy_flash_t bank_flash = {
    .geometry = &geometry,
    .read = read_flash,
    .erase = erase_sector,
    .program = program_units,
    .map = map_flash,
};

const mdy_port_t mdy_port = {
    .flash = &bank_flash,
    .receive = receive,
    .send = send,
    .random = draw_random,
    .ticks = count_ticks,
    .ticks_per_second = TICKS_PER_SECOND,
    .stack_paint = paint_stack,
    .stack_mark = mark_stack,
    .static_bytes = count_static_bytes,
};
