/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated flash and the placing of banks, for any list of sectors. */
#include <string.h>

#include "flash_emu.h"
#include "mdy/banks.h"

#define RUNS 8

static mdy_flash_run_t runs[RUNS];
static mdy_flash_geometry_t geometry = {runs, 0, 1};
static uint8_t image[1u << 16];
static mdy_flash_emu_t emu = {.geometry = &geometry, .image = image};

/* `pairs`: count and bytes of each run. */
void flash_probe_geometry(const uint32_t *pairs, uint32_t count, uint32_t unit_bytes)
{
    for (uint32_t i = 0; i < count && i < RUNS; i++) {
        runs[i] = (mdy_flash_run_t){pairs[2 * i], pairs[2 * i + 1]};
    }
    geometry.run_count = count;
    geometry.unit_bytes = unit_bytes;
}

/* *words: address and bytes of both banks. */
int flash_probe_place(uint32_t generation_bytes, uint32_t *words)
{
    mdy_bank_t banks[2];
    const int status = (int)mdy_banks_place(&geometry, generation_bytes, banks);
    memcpy(words, banks, sizeof banks);
    return status;
}

uint32_t flash_probe_sector(uint32_t address, uint32_t *index)
{
    return mdy_flash_sector(&geometry, address, index);
}

void flash_probe_format(void)
{
    mdy_flash_emu_format(&emu);
    mdy_flash_emu_reboot(&emu);
}

int flash_probe_adopt(const uint8_t *bytes, uint32_t n)
{
    mdy_flash_emu_format(&emu);
    memcpy(image, bytes, n);
    return mdy_flash_emu_adopt(&emu, n);
}

void flash_probe_cut(uint32_t at, int phase, uint32_t seed)
{
    emu.operations = 0;
    emu.cut_at = at;
    emu.cut_phase = (mdy_cut_phase_t)phase;
    emu.seed = seed;
}

void flash_probe_fail(uint32_t at, uint32_t count, uint32_t seed)
{
    emu.operations = 0;
    emu.fail_at = at;
    emu.fail_count = count;
    emu.seed = seed;
}

void flash_probe_bad(uint32_t address, uint32_t bytes)
{
    emu.bad_address = address;
    emu.bad_bytes = bytes;
}

void flash_probe_reboot(void)
{
    mdy_flash_emu_reboot(&emu);
}

int flash_probe_read(uint32_t address, uint8_t *dst, uint32_t n)
{
    return (int)mdy_flash_emu_read(&emu, address, dst, n);
}

int flash_probe_erase(uint32_t address)
{
    return (int)mdy_flash_emu_erase(&emu, address);
}

int flash_probe_program(uint32_t address, const uint8_t *src, uint32_t n)
{
    return (int)mdy_flash_emu_program(&emu, address, src, n);
}

uint32_t flash_probe_erases(uint32_t sector)
{
    return mdy_flash_emu_erases(&emu, sector);
}

const uint8_t *flash_probe_image(void)
{
    return image;
}
