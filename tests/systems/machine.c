/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "machine.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "flash_emu.h"

#define UNIT_BYTES 4u
#define IMAGE_BYTES MDY_FLASH_EMU_IMAGE_BYTES(MACHINE_BYTES, UNIT_BYTES, MACHINE_SECTORS)

static const mdy_flash_run_t runs[] = {{MACHINE_SECTORS, MACHINE_SECTOR_BYTES}};
static const mdy_flash_geometry_t geometry = {.runs = runs, .run_count = 1, .unit_bytes = UNIT_BYTES};
static _Alignas(32) uint8_t image[IMAGE_BYTES];
static int file = -1;

static mdy_status_t keep(void *context, uint32_t address, const uint8_t *bytes, uint32_t n)
{
    (void)context;
    return pwrite(file, bytes, n, (off_t)address) == (ssize_t)n ? MDY_OK : MDY_FLASH;
}

static mdy_flash_emu_t *flash(void)
{
    static mdy_flash_emu_t emulator = {.geometry = &geometry, .image = image, .sync = keep};
    if (file < 0) {
        mdy_flash_emu_format(&emulator);
        file = open(getenv("MDY_FLASH_FILE"), O_RDWR | O_CREAT, 0666);
        const ssize_t n = file < 0 ? -1 : pread(file, image, IMAGE_BYTES, 0);
        if (n < 0 || (n > 0 && n != (ssize_t)IMAGE_BYTES) || (n == 0 && keep(NULL, 0, image, IMAGE_BYTES) != MDY_OK)) {
            abort();
        }
    }
    return &emulator;
}

int machine_read(uint32_t address, void *dst, size_t n)
{
    return mdy_flash_emu_read(flash(), address, dst, (uint32_t)n) == MDY_OK ? 0 : -1;
}

int machine_write(uint32_t address, const void *src, size_t n)
{
    return mdy_flash_emu_program(flash(), address, src, (uint32_t)n) == MDY_OK ? 0 : -1;
}

int machine_erase(uint32_t address, size_t n)
{
    for (uint32_t end = address + (uint32_t)n; address < end; address += MACHINE_SECTOR_BYTES) {
        if (mdy_flash_emu_erase(flash(), address) != MDY_OK) {
            return -1;
        }
    }
    return 0;
}

const uint8_t *machine_memory(void)
{
    return mdy_flash_emu_map(flash());
}

size_t machine_take(uint8_t *dst, size_t n)
{
    const ssize_t got = read(STDIN_FILENO, dst, n);
    if (got <= 0) {
        exit(0);
    }
    return (size_t)got;
}

void machine_give(const uint8_t *src, size_t n)
{
    if (write(STDOUT_FILENO, src, n) != (ssize_t)n) {
        abort();
    }
}
