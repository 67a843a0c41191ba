/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The board that is a process: link on stdin and stdout, flash in memory or in a file.
 *
 * MDY_FLASH_FILE  path of the flash image, read at first use and written through; unset: memory
 *                 only. The file holds the flash's bytes, then the emulator's marks (torn and
 *                 programmed units), so that a torn unit still reads as an error in the next
 *                 process. A file of the flash's bytes alone is accepted and completed, a file of
 *                 any other size refused (every call returns MDY_FLASH).
 * MDY_FLASH_CUT   "N:before", "N:inside" or "N:after": the power is cut at the N-th erase or unit
 *                 program of this process, which then ends with status 99.
 */
#define _POSIX_C_SOURCE 200809L

#include "mdy/port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "flash_emu.h"
#include "flash_geometry.h"

#define EXIT_POWER_CUT 99
#define EXIT_USAGE 2

enum { MARK_BYTES = MDY_FLASH_EMU_MARK_BYTES(MDY_FLASH_BYTES, MDY_FLASH_UNIT_BYTES) };

const mdy_flash_geometry_t mdy_port_flash = {
    .bytes = MDY_FLASH_BYTES,
    .sector_bytes = MDY_FLASH_SECTOR_BYTES,
    .unit_bytes = MDY_FLASH_UNIT_BYTES,
};
const uint32_t mdy_port_instructions_per_tick = 0;

static mdy_status_t write_through(void *context, uint32_t address, const uint8_t *bytes,
                                  uint32_t n);

/* Aligned as flash would be: kernels read words through the map. */
static _Alignas(32) uint8_t flash_memory[MDY_FLASH_BYTES];
static uint8_t flash_marks[MARK_BYTES];
static uint32_t flash_erases[MDY_FLASH_BYTES / MDY_FLASH_SECTOR_BYTES];
static int flash_file = -1;
static enum { FLASH_UNTOUCHED, FLASH_READY, FLASH_REFUSED } flash_state;
static mdy_flash_emu_t flash = {
    .geometry = &mdy_port_flash,
    .memory = flash_memory,
    .marks = flash_marks,
    .erases = flash_erases,
    .sync = write_through,
};

static mdy_status_t write_through(void *context, uint32_t address, const uint8_t *bytes, uint32_t n)
{
    (void)context;
    uint32_t done = 0;
    while (flash_file >= 0 && done < n) {
        const ssize_t put = pwrite(flash_file, &bytes[done], n - done, (off_t)address + done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return MDY_FLASH;
        }
        done += (uint32_t)put;
    }
    return MDY_OK;
}

static mdy_status_t read_image(uint32_t address, uint8_t *bytes, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        const ssize_t got = pread(flash_file, &bytes[done], n - done, (off_t)address + done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return MDY_FLASH;
        }
        done += (uint32_t)got;
    }
    return MDY_OK;
}

static void refuse_usage(void)
{
    static const char text[] = "MDY_FLASH_CUT: expected N:before, N:inside or N:after, N >= 1\n";
    if (write(STDERR_FILENO, text, sizeof text - 1U) < 0) {
        /* The exit status says it too. */
    }
    _exit(EXIT_USAGE);
}

/* A misspelt cut that never happens would look like a passed test, so it ends the process. */
static void arm_cut(const char *text)
{
    char *rest = NULL;
    errno = 0;
    const unsigned long at = strtoul(text, &rest, 10);
    if (errno != 0 || text[0] < '0' || text[0] > '9' || at == 0 || at > UINT32_MAX) {
        refuse_usage();
    }
    if (strcmp(rest, ":before") == 0) {
        flash.cut_phase = MDY_CUT_BEFORE;
    } else if (strcmp(rest, ":inside") == 0) {
        flash.cut_phase = MDY_CUT_INSIDE;
    } else if (strcmp(rest, ":after") == 0) {
        flash.cut_phase = MDY_CUT_AFTER;
    } else {
        refuse_usage();
    }
    flash.cut_at = (uint32_t)at;
}

/* Reads the image, or makes what is missing of it. */
static mdy_status_t load_image(const char *path)
{
    struct stat info;
    do {
        flash_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    } while (flash_file < 0 && errno == EINTR);
    if (flash_file < 0 || fstat(flash_file, &info) != 0) {
        return MDY_FLASH;
    }
    const bool has_memory = info.st_size >= (off_t)MDY_FLASH_BYTES;
    const bool has_marks = info.st_size == (off_t)MDY_FLASH_BYTES + (off_t)MARK_BYTES;
    if (has_marks) {
        const mdy_status_t status = read_image(MDY_FLASH_BYTES, flash_marks, MARK_BYTES);
        return status != MDY_OK ? status : read_image(0, flash_memory, MDY_FLASH_BYTES);
    }
    if (has_memory ? info.st_size != (off_t)MDY_FLASH_BYTES : info.st_size != 0) {
        return MDY_FLASH;
    }
    if (has_memory) {
        const mdy_status_t status = read_image(0, flash_memory, MDY_FLASH_BYTES);
        if (status != MDY_OK) {
            return status;
        }
        mdy_flash_emu_adopt(&flash);
    } else {
        const mdy_status_t status = write_through(NULL, 0, flash_memory, MDY_FLASH_BYTES);
        if (status != MDY_OK) {
            return status;
        }
    }
    return write_through(NULL, MDY_FLASH_BYTES, flash_marks, MARK_BYTES);
}

static bool flash_is_ready(void)
{
    if (flash_state == FLASH_UNTOUCHED) {
        const char *const path = getenv("MDY_FLASH_FILE");
        const char *const cut = getenv("MDY_FLASH_CUT");
        mdy_flash_emu_format(&flash);
        flash_state = path == NULL || load_image(path) == MDY_OK ? FLASH_READY : FLASH_REFUSED;
        if (cut != NULL) {
            arm_cut(cut);
        }
    }
    return flash_state == FLASH_READY;
}

/* Without power there is no program that could go on. */
static mdy_status_t end_if_cut(mdy_status_t status)
{
    if (flash.is_dead) {
        _exit(EXIT_POWER_CUT);
    }
    return status;
}

mdy_status_t mdy_port_flash_read(uint32_t address, void *dst, uint32_t n)
{
    return flash_is_ready() ? mdy_flash_emu_read(&flash, address, dst, n) : MDY_FLASH;
}

mdy_status_t mdy_port_flash_erase(uint32_t address)
{
    return flash_is_ready() ? end_if_cut(mdy_flash_emu_erase(&flash, address)) : MDY_FLASH;
}

mdy_status_t mdy_port_flash_program(uint32_t address, const void *src, uint32_t n)
{
    return flash_is_ready() ? end_if_cut(mdy_flash_emu_program(&flash, address, src, n))
                            : MDY_FLASH;
}

const uint8_t *mdy_port_flash_map(void)
{
    (void)flash_is_ready();
    return flash_memory;
}

int32_t mdy_port_link_read(uint8_t *dst, uint32_t n)
{
    ssize_t got;
    do {
        got = read(STDIN_FILENO, dst, n > (uint32_t)INT32_MAX ? (size_t)INT32_MAX : n);
    } while (got < 0 && errno == EINTR);
    return got > 0 ? (int32_t)got : (int32_t)MDY_LINK;
}

mdy_status_t mdy_port_link_write(const uint8_t *src, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        const ssize_t put = write(STDOUT_FILENO, &src[done], n - done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return MDY_LINK;
        }
        done += (uint32_t)put;
    }
    return MDY_OK;
}

uint32_t mdy_port_ticks(void) { return 0; }

/* The host's stack and static data say nothing about the target's. */
void mdy_port_stack_paint(uint8_t pattern) { (void)pattern; }

uint32_t mdy_port_stack_mark(uint8_t pattern)
{
    (void)pattern;
    return 0;
}

uint32_t mdy_port_static_bytes(void) { return 0; }
