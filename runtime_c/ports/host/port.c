/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The board that is a process: link on stdin and stdout, flash in memory or in a file.
 *
 * MDY_FLASH_FILE  path of the flash image, read at first use and written through; unset: memory
 *                 only. The emulator's marks are part of it, so that a torn unit still reads as an error
 *                 in the next process. An image without marks or counts is completed, one of
 *                 any other size refused (every call returns MDY_FLASH).
 * MDY_FLASH_CUT   "N:before", "N:inside" or "N:after": the power is cut at the N-th erase or unit
 *                 program of this process, which then ends with status 99.
 * MDY_FLASH_FAIL  "N:COUNT": COUNT operations from the N-th on happen in part and report failure.
 * MDY_FLASH_IGNORE "N:COUNT": COUNT operations from the N-th on do nothing and report success.
 * MDY_FLASH_DEAD  "ADDRESS:COUNT": operations that touch COUNT bytes from there happen in part and report failure.
 * MDY_FLASH_BAD   "ADDRESS:COUNT": reads that touch COUNT bytes from there fail.
 * MDY_FLASH_SEED  "N": draws what a part of an operation leaves behind.
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

#define IMAGE_BYTES MDY_FLASH_EMU_IMAGE_BYTES(MDY_FLASH_BYTES, MDY_FLASH_UNIT_BYTES, MDY_FLASH_SECTORS)

static const mdy_flash_run_t flash_runs[] = {MDY_FLASH_RUNS};
static const mdy_flash_geometry_t geometry = {
    .runs = flash_runs,
    .run_count = sizeof flash_runs / sizeof flash_runs[0],
    .unit_bytes = MDY_FLASH_UNIT_BYTES,
};

static mdy_status_t write_through(void *context, uint32_t address, const uint8_t *bytes, uint32_t n);

/* Aligned as flash would be: kernels read words through the map. */
static _Alignas(32) uint8_t flash_image[IMAGE_BYTES];
static int flash_file = -1;
static enum { FLASH_UNTOUCHED, FLASH_READY, FLASH_REFUSED } flash_state;
static mdy_flash_emu_t flash = {
    .geometry = &geometry,
    .image = flash_image,
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

/* The first n bytes of the image. */
static mdy_status_t read_image(uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        const ssize_t got = pread(flash_file, &flash_image[done], n - done, (off_t)done);
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

/* A misspelt fault that never happens would look like a passed test, so it ends the process. */
static void refuse_usage(void)
{
    static const char text[] = "MDY_FLASH_CUT is N:before, N:inside or N:after; MDY_FLASH_FAIL and "
                               "MDY_FLASH_IGNORE N:COUNT; MDY_FLASH_BAD and MDY_FLASH_DEAD ADDRESS:COUNT; "
                               "MDY_FLASH_SEED N; N and COUNT are at least 1\n";
    if (write(STDERR_FILENO, text, sizeof text - 1U) < 0) {
        /* The exit status says it too. */
    }
    _exit(EXIT_USAGE);
}

/* A number of at least `least`; what follows it comes back. */
static const char *number(const char *text, uint32_t least, uint32_t *value)
{
    char *rest = NULL;
    errno = 0;
    const unsigned long read = strtoul(text, &rest, 10);
    if (errno != 0 || text[0] < '0' || text[0] > '9' || read < least || read > UINT32_MAX) {
        refuse_usage();
    }
    *value = (uint32_t)read;
    return rest;
}

static void arm_cut(const char *text)
{
    const char *const rest = number(text, 1, &flash.cut_at);
    if (strcmp(rest, ":before") == 0) {
        flash.cut_phase = MDY_CUT_BEFORE;
    } else if (strcmp(rest, ":inside") == 0) {
        flash.cut_phase = MDY_CUT_INSIDE;
    } else if (strcmp(rest, ":after") == 0) {
        flash.cut_phase = MDY_CUT_AFTER;
    } else {
        refuse_usage();
    }
}

static void arm_span(const char *text, uint32_t least, uint32_t *first, uint32_t *count)
{
    const char *const rest = number(text, least, first);
    if (rest[0] != ':' || number(&rest[1], 1, count)[0] != '\0') {
        refuse_usage();
    }
}

static void arm_faults(void)
{
    const char *const cut = getenv("MDY_FLASH_CUT");
    const char *const fail = getenv("MDY_FLASH_FAIL");
    const char *const ignore = getenv("MDY_FLASH_IGNORE");
    const char *const dead = getenv("MDY_FLASH_DEAD");
    const char *const bad = getenv("MDY_FLASH_BAD");
    const char *const seed = getenv("MDY_FLASH_SEED");
    if (cut != NULL) {
        arm_cut(cut);
    }
    if (fail != NULL) {
        arm_span(fail, 1, &flash.fail_at, &flash.fail_count);
    }
    if (ignore != NULL) {
        arm_span(ignore, 1, &flash.lie_at, &flash.lie_count);
        flash.lie = MDY_LIE_IGNORED;
    }
    if (dead != NULL) {
        arm_span(dead, 0, &flash.dead_address, &flash.dead_bytes);
    }
    if (bad != NULL) {
        arm_span(bad, 0, &flash.bad_address, &flash.bad_bytes);
    }
    if (seed != NULL && number(seed, 0, &flash.seed)[0] != '\0') {
        refuse_usage();
    }
}

/* Reads the image, or makes what is missing of it. */
static mdy_status_t load_image(const char *path)
{
    struct stat info;
    do {
        flash_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    } while (flash_file < 0 && errno == EINTR);
    if (flash_file < 0 || fstat(flash_file, &info) != 0 || info.st_size > (off_t)IMAGE_BYTES) {
        return MDY_FLASH;
    }
    const uint32_t n = (uint32_t)info.st_size;
    if (n > 0 && (read_image(n) != MDY_OK || !mdy_flash_emu_adopt(&flash, n))) {
        return MDY_FLASH;
    }
    return n == IMAGE_BYTES ? MDY_OK : write_through(NULL, 0, flash_image, IMAGE_BYTES);
}

static bool flash_is_ready(void)
{
    if (flash_state == FLASH_UNTOUCHED) {
        const char *const path = getenv("MDY_FLASH_FILE");
        mdy_flash_emu_format(&flash);
        flash_state = path == NULL || load_image(path) == MDY_OK ? FLASH_READY : FLASH_REFUSED;
        arm_faults();
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

static mdy_status_t read_flash(void *context, uint32_t address, void *dst, uint32_t n)
{
    (void)context;
    return flash_is_ready() ? mdy_flash_emu_read(&flash, address, dst, n) : MDY_FLASH;
}

static mdy_status_t erase_sector(void *context, uint32_t address)
{
    (void)context;
    return flash_is_ready() ? end_if_cut(mdy_flash_emu_erase(&flash, address)) : MDY_FLASH;
}

static mdy_status_t program_units(void *context, uint32_t address, const void *src, uint32_t n)
{
    (void)context;
    return flash_is_ready() ? end_if_cut(mdy_flash_emu_program(&flash, address, src, n)) : MDY_FLASH;
}

static const uint8_t *map_flash(void *context)
{
    (void)context;
    (void)flash_is_ready();
    return flash_image;
}

static int32_t receive(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    ssize_t got;
    do {
        got = read(STDIN_FILENO, dst, n > (uint32_t)INT32_MAX ? (size_t)INT32_MAX : n);
    } while (got < 0 && errno == EINTR);
    return got > 0 ? (int32_t)got : (int32_t)MDY_LINK;
}

static mdy_status_t send(void *context, const uint8_t *src, uint32_t n)
{
    (void)context;
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

static mdy_status_t draw_random(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    const int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    const ssize_t got = file < 0 ? -1 : read(file, dst, n);
    if (file >= 0) {
        (void)close(file);
    }
    return got == (ssize_t)n ? MDY_OK : MDY_STATE;
}

/* No counter, stack or static data: the host's say nothing about the target's. */
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
};
