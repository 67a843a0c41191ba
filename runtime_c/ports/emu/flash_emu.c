/* SPDX-License-Identifier: Apache-2.0 */
#include "flash_emu.h"

#include <string.h>

/* The two marks of a unit; four units share a byte of `marks`. */
#define PROGRAMMED 1U
#define TORN 2U
#define ALL_MARKS (PROGRAMMED | TORN)

#define ERASED 0xFFU
#define RUBBISH 0x5AU /* neither erased nor likely to be the old contents */

static uint32_t mark_shift(uint32_t unit) { return 2U * (unit % 4U); }

static uint32_t mark_get(const mdy_flash_emu_t *emu, uint32_t unit)
{
    return ((uint32_t)emu->marks[unit / 4U] >> mark_shift(unit)) & ALL_MARKS;
}

static void mark_set(mdy_flash_emu_t *emu, uint32_t unit, uint32_t mark)
{
    const uint32_t others = emu->marks[unit / 4U] & ~(ALL_MARKS << mark_shift(unit));
    emu->marks[unit / 4U] = (uint8_t)(others | (mark << mark_shift(unit)));
}

static bool is_inside(const mdy_flash_emu_t *emu, uint32_t address, uint32_t n)
{
    return address <= emu->geometry->bytes && n <= emu->geometry->bytes - address;
}

static bool is_erased(const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (bytes[i] != ERASED) {
            return false;
        }
    }
    return true;
}

/* Sends `n` changed bytes of memory, whole units, and their marks. */
static mdy_status_t sync_units(mdy_flash_emu_t *emu, uint32_t address, uint32_t n)
{
    if (emu->sync == NULL || n == 0U) {
        return MDY_OK;
    }
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint32_t first = address / unit_bytes / 4U;
    const uint32_t last = ((address + n) / unit_bytes - 1U) / 4U;
    /* Marks and memory are two writes. A process killed between them leaves a file in which either
     * the mark or the contents say "programmed"; both are asked before a unit is programmed. */
    const mdy_status_t status = emu->sync(emu->context, emu->geometry->bytes + first,
                                          &emu->marks[first], last - first + 1U);
    return status != MDY_OK ? status : emu->sync(emu->context, address, &emu->memory[address], n);
}

/* Counts an operation; true if the power is cut during it. */
static bool begin(mdy_flash_emu_t *emu)
{
    emu->operations++;
    emu->is_dead = emu->operations == emu->cut_at;
    return emu->is_dead;
}

void mdy_flash_emu_format(mdy_flash_emu_t *emu)
{
    const mdy_flash_geometry_t *const geometry = emu->geometry;
    memset(emu->memory, ERASED, geometry->bytes);
    memset(emu->marks, 0, MDY_FLASH_EMU_MARK_BYTES(geometry->bytes, geometry->unit_bytes));
    memset(emu->erases, 0, geometry->bytes / geometry->sector_bytes * sizeof *emu->erases);
}

void mdy_flash_emu_adopt(mdy_flash_emu_t *emu)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    for (uint32_t unit = 0; unit < emu->geometry->bytes / unit_bytes; unit++) {
        const bool is_fresh = is_erased(&emu->memory[unit * unit_bytes], unit_bytes);
        mark_set(emu, unit, is_fresh ? 0U : PROGRAMMED);
    }
}

void mdy_flash_emu_reboot(mdy_flash_emu_t *emu)
{
    emu->operations = 0;
    emu->cut_at = 0;
    emu->is_dead = false;
}

mdy_status_t mdy_flash_emu_read(const mdy_flash_emu_t *emu, uint32_t address, void *dst, uint32_t n)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    if (!is_inside(emu, address, n)) {
        return MDY_ARGUMENT;
    }
    if (emu->is_dead) {
        return MDY_FLASH;
    }
    if (n == 0U) {
        return MDY_OK;
    }
    for (uint32_t unit = address / unit_bytes; unit <= (address + n - 1U) / unit_bytes; unit++) {
        if (mark_get(emu, unit) & TORN) {
            return MDY_FLASH;
        }
    }
    memcpy(dst, &emu->memory[address], n);
    return MDY_OK;
}

mdy_status_t mdy_flash_emu_erase(mdy_flash_emu_t *emu, uint32_t address)
{
    const mdy_flash_geometry_t *const geometry = emu->geometry;
    if (address >= geometry->bytes || address % geometry->sector_bytes != 0U) {
        return MDY_ARGUMENT;
    }
    if (emu->is_dead) {
        return MDY_FLASH;
    }
    const bool is_cut = begin(emu);
    if (is_cut && emu->cut_phase == MDY_CUT_BEFORE) {
        return MDY_FLASH;
    }
    const bool is_half = is_cut && emu->cut_phase == MDY_CUT_INSIDE;
    const uint32_t units = geometry->sector_bytes / geometry->unit_bytes;
    const uint32_t done = is_half ? units / 2U : units;
    const uint32_t first = address / geometry->unit_bytes;

    memset(&emu->memory[address], ERASED, done * geometry->unit_bytes);
    for (uint32_t unit = first; unit < first + done; unit++) {
        mark_set(emu, unit, 0U);
    }
    if (is_half && done > 0U) {
        /* In the erased half, so that a check of the first bytes alone is deceived. */
        emu->memory[address + done * geometry->unit_bytes - 1U] = RUBBISH;
        mark_set(emu, first + done - 1U, PROGRAMMED);
    }
    emu->erases[address / geometry->sector_bytes]++;
    const mdy_status_t status = sync_units(emu, address, done * geometry->unit_bytes);
    return is_cut ? MDY_FLASH : status;
}

/* Programs one unit in memory; `*done`: the unit changed, which it may even if the call fails. */
static mdy_status_t program_unit(mdy_flash_emu_t *emu, uint32_t address, const uint8_t *src,
                                 bool *done)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint32_t unit = address / unit_bytes;
    uint8_t *const cells = &emu->memory[address];

    *done = false;
    if (mark_get(emu, unit) != 0U || !is_erased(cells, unit_bytes)) {
        return MDY_FLASH;
    }
    const bool is_cut = begin(emu);
    if (is_cut && emu->cut_phase == MDY_CUT_BEFORE) {
        return MDY_FLASH;
    }
    const bool is_half = is_cut && emu->cut_phase == MDY_CUT_INSIDE;
    /* Bits are only ever cleared; a torn unit has the low half of each byte, so that "half" exists
     * for units of one byte too. */
    const uint32_t kept = is_half ? 0xF0U : 0U;
    for (uint32_t i = 0; i < unit_bytes; i++) {
        cells[i] = (uint8_t)(cells[i] & (src[i] | kept));
    }
    mark_set(emu, unit, is_half ? ALL_MARKS : PROGRAMMED);
    *done = true;
    return is_cut ? MDY_FLASH : MDY_OK;
}

mdy_status_t mdy_flash_emu_program(mdy_flash_emu_t *emu, uint32_t address, const void *src,
                                   uint32_t n)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint8_t *const bytes = src;
    if (!is_inside(emu, address, n) || address % unit_bytes != 0U || n % unit_bytes != 0U) {
        return MDY_ARGUMENT;
    }
    if (emu->is_dead) {
        return MDY_FLASH;
    }
    mdy_status_t status = MDY_OK;
    uint32_t changed = 0; /* bytes from `address` on that differ from the image outside */
    for (uint32_t at = 0; at < n && status == MDY_OK; at += unit_bytes) {
        bool done;
        status = program_unit(emu, address + at, &bytes[at], &done);
        changed += done ? unit_bytes : 0U;
    }
    /* One sync for the whole call: on QEMU each of them costs a system call of the host. */
    const mdy_status_t synced = sync_units(emu, address, changed);
    return status != MDY_OK ? status : synced;
}
