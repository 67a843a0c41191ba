/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Port for QEMU's MPS2 and MPS3 machines; what differs between them is in each board's record.
 *
 * Link: two named pipes in QEMU's working directory, `link.in` (towards the device) and
 * `link.out`, opened in this order at first use; opening a pipe waits for its other end, so the
 * host opens them in the same order. Flash: these machines have none, so it is emulated in the
 * PSRAM, outside the RAM that the linker counts, and written through to `flash.bin` beside the
 * pipes, see flash_emu.h. A `flash.bin` without marks or counts is completed, a missing one made, and one of any
 * other size refused (every call returns MDY_FLASH).
 */
#include "mdy/port.h"

#include "flash_emu.h"
#include "flash_geometry.h"
#include "semihosting.h"

#define IMAGE_BYTES MDY_FLASH_EMU_IMAGE_BYTES(MDY_FLASH_BYTES, MDY_FLASH_UNIT_BYTES, MDY_FLASH_SECTORS)

/* The board's record says which timer it is, and how many counts are one tick of how many instructions:
 * with `-icount shift=0` an instruction takes 1 ns of guest time. */
#ifdef MDY_TIMER_CMSDK /* CMSDK APB timer 0: a 32-bit down-counter. */
#define TIMER_CTRL (*(volatile uint32_t *)0x40000000U)
#define TIMER_VALUE (*(volatile uint32_t *)0x40000004U)
#define TIMER_RELOAD (*(volatile uint32_t *)0x40000008U)
#define TIMER_MAX UINT32_MAX
#define TIMER_ENABLE 1U
#else /* SysTick: of 24 bits. What takes more counts between two readings is counted short. */
#define TIMER_CTRL (*(volatile uint32_t *)0xE000E010U)
#define TIMER_VALUE (*(volatile uint32_t *)0xE000E018U)
#define TIMER_RELOAD (*(volatile uint32_t *)0xE000E014U)
#define TIMER_MAX 0x00FFFFFFU
#define TIMER_ENABLE 5U /* on the processor's clock */
#endif

static const mdy_flash_run_t flash_runs[] = {MDY_FLASH_RUNS};
static const mdy_flash_geometry_t geometry = {
    .runs = flash_runs,
    .run_count = sizeof flash_runs / sizeof flash_runs[0],
    .unit_bytes = MDY_FLASH_UNIT_BYTES,
};

extern uint8_t mdy_stack_bottom[], mdy_stack_top[];
extern uint8_t mdy_data_start[], mdy_data_end[], mdy_bss_start[], mdy_bss_end[];
extern uint8_t mdy_areas_bytes[]; /* the address is the number */

/* What the emulator needs is no RAM of the device. The section is not cleared at start-up. */
#define IN_BANKS __attribute__((section(".banks")))
static IN_BANKS _Alignas(32) uint8_t flash_image[IMAGE_BYTES];
static IN_BANKS mdy_flash_emu_t flash;
static IN_BANKS int32_t flash_file;

static enum { FLASH_UNTOUCHED, FLASH_READY, FLASH_REFUSED } flash_state;
static int32_t link_in, link_out; /* 0: not opened yet; negative: could not be opened */
static bool is_timer_running;
static uint32_t timer_last, timer_counts;

/* Handle, or -1. */
static int32_t file_open(const char *name, uint32_t name_bytes, uint32_t mode)
{
    const uint32_t arguments[] = {(uint32_t)(uintptr_t)name, mode, name_bytes};
    return semihosting(SYS_OPEN, arguments);
}

static bool file_seek(int32_t file, uint32_t offset)
{
    const uint32_t arguments[] = {(uint32_t)file, offset};
    return semihosting(SYS_SEEK, arguments) >= 0;
}

/* Bytes read: fewer than n where the file has no more at the moment, 0 at its end or on error. */
static uint32_t file_read(int32_t file, uint8_t *dst, uint32_t n)
{
    const uint32_t arguments[] = {(uint32_t)file, (uint32_t)(uintptr_t)dst, n};
    const uint32_t missing = (uint32_t)semihosting(SYS_READ, arguments);
    return missing <= n ? n - missing : 0U;
}

static bool file_read_all(int32_t file, uint8_t *dst, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        const uint32_t got = file_read(file, &dst[done], n - done);
        if (got == 0U) {
            return false;
        }
        done += got;
    }
    return true;
}

static bool file_write_all(int32_t file, const uint8_t *src, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        const uint32_t arguments[] = {(uint32_t)file, (uint32_t)(uintptr_t)&src[done], n - done};
        const uint32_t missing = (uint32_t)semihosting(SYS_WRITE, arguments);
        if (missing >= n - done) {
            return false;
        }
        done = n - missing;
    }
    return true;
}

static mdy_status_t write_through(void *context, uint32_t address, const uint8_t *bytes, uint32_t n)
{
    (void)context;
    const bool is_written = file_seek(flash_file, address) && file_write_all(flash_file, bytes, n);
    return is_written ? MDY_OK : MDY_FLASH;
}

/* Reads the image, or makes what is missing of it. */
static bool load_image(void)
{
    static const char name[] = "flash.bin";
    flash_file = file_open(name, sizeof name - 1U, MODE_UPDATE);
    if (flash_file < 0) {
        flash_file = file_open(name, sizeof name - 1U, MODE_CREATE_UPDATE);
    }
    if (flash_file < 0) {
        return false;
    }
    const uint32_t arguments[] = {(uint32_t)flash_file};
    const int32_t length = semihosting(SYS_FLEN, arguments);
    if (length < 0 || length > (int32_t)IMAGE_BYTES) {
        return false;
    }
    const uint32_t n = (uint32_t)length;
    const bool is_read = n == 0U || (file_seek(flash_file, 0) && file_read_all(flash_file, flash_image, n) &&
                                     mdy_flash_emu_adopt(&flash, n));
    return is_read && (n == IMAGE_BYTES || write_through(NULL, 0, flash_image, IMAGE_BYTES) == MDY_OK);
}

static bool flash_is_ready(void)
{
    if (flash_state == FLASH_UNTOUCHED) {
        flash = (mdy_flash_emu_t){
            .geometry = &geometry,
            .image = flash_image,
            .sync = write_through,
        };
        mdy_flash_emu_format(&flash);
        flash_state = load_image() ? FLASH_READY : FLASH_REFUSED;
    }
    return flash_state == FLASH_READY;
}

static mdy_status_t read_flash(void *context, uint32_t address, void *dst, uint32_t n)
{
    (void)context;
    return flash_is_ready() ? mdy_flash_emu_read(&flash, address, dst, n) : MDY_FLASH;
}

static mdy_status_t erase_sector(void *context, uint32_t address)
{
    (void)context;
    return flash_is_ready() ? mdy_flash_emu_erase(&flash, address) : MDY_FLASH;
}

static mdy_status_t program_units(void *context, uint32_t address, const void *src, uint32_t n)
{
    (void)context;
    return flash_is_ready() ? mdy_flash_emu_program(&flash, address, src, n) : MDY_FLASH;
}

static const uint8_t *map_flash(void *context)
{
    (void)context;
    (void)flash_is_ready();
    return flash_image;
}

static bool link_is_open(void)
{
    static const char in_name[] = "link.in";
    static const char out_name[] = "link.out";
    if (link_in == 0) {
        link_in = file_open(in_name, sizeof in_name - 1U, MODE_READ);
        link_out = link_in < 0 ? -1 : file_open(out_name, sizeof out_name - 1U, MODE_WRITE);
    }
    return link_out > 0;
}

static int32_t receive(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    const uint32_t most = n > (uint32_t)INT32_MAX ? (uint32_t)INT32_MAX : n;
    const uint32_t got = link_is_open() ? file_read(link_in, dst, most) : 0U;
    return got > 0U ? (int32_t)got : (int32_t)MDY_LINK;
}

static mdy_status_t send(void *context, const uint8_t *src, uint32_t n)
{
    (void)context;
    return link_is_open() && file_write_all(link_out, src, n) ? MDY_OK : MDY_LINK;
}

/* The emulated boards have no source of their own: the machine that emulates lends its. */
static mdy_status_t draw_random(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    static const char name[] = "/dev/urandom";
    static int32_t file;
    if (file == 0) {
        file = file_open(name, sizeof name - 1U, MODE_READ);
    }
    return file > 0 && file_read_all(file, dst, n) ? MDY_OK : MDY_STATE;
}

static uint32_t count_ticks(void *context)
{
    (void)context;
    if (!is_timer_running) {
        TIMER_RELOAD = TIMER_MAX;
        TIMER_VALUE = TIMER_MAX;
        TIMER_CTRL = TIMER_ENABLE;
        timer_last = TIMER_VALUE;
        is_timer_running = true;
    }
    const uint32_t now = TIMER_VALUE;
    timer_counts += (timer_last - now) & TIMER_MAX;
    timer_last = now;
    return timer_counts / MDY_TIMER_COUNTS;
}

/* Nothing lives below the stack pointer: no interrupt is enabled, and this function calls nothing.
 * The pointer is volatile so that the loop does not become a call to memset, whose own frame would
 * stand in the painted memory. */
static void paint_stack(void *context, uint8_t pattern)
{
    (void)context;
    uint8_t *stack;
    __asm__ volatile("mov %0, sp" : "=r"(stack));
    for (volatile uint8_t *at = mdy_stack_bottom; at < stack; at++) {
        *at = pattern;
    }
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
    .instructions_per_tick = MDY_TIMER_INSTRUCTIONS,
    .stack_paint = paint_stack,
    .stack_mark = mark_stack,
    .static_bytes = count_static_bytes,
};
