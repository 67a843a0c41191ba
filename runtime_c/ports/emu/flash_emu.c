/* SPDX-License-Identifier: Apache-2.0 */
#include "flash_emu.h"

#include <string.h>

#include "mdy/banks.h"
#include "mdy/rng.h"

/* The two marks of a unit; four units share a byte. */
#define PROGRAMMED 1U
#define TORN 2U
#define ALL_MARKS (PROGRAMMED | TORN)

#define ERASED 0xFFU

/* How much of an operation happens; ODD: all of it, with one bit wrong. */
typedef enum { ALL, PART, NOTHING, ODD } extent_t;

static uint32_t memory_bytes(const mdy_flash_emu_t *emu)
{
    return mdy_flash_bytes(emu->geometry);
}

static uint32_t mark_bytes(const mdy_flash_emu_t *emu)
{
    return MDY_FLASH_EMU_MARK_BYTES(memory_bytes(emu), emu->geometry->unit_bytes);
}

static uint32_t sectors(const mdy_flash_emu_t *emu)
{
    uint32_t index;
    (void)mdy_flash_sector(emu->geometry, memory_bytes(emu), &index);
    return index;
}

/* The byte of the image that holds a unit's marks. */
static uint32_t mark_address(const mdy_flash_emu_t *emu, uint32_t unit)
{
    return memory_bytes(emu) + unit / 4U;
}

static uint32_t mark_shift(uint32_t unit)
{
    return 2U * (unit % 4U);
}

static uint32_t mark_get(const mdy_flash_emu_t *emu, uint32_t unit)
{
    return ((uint32_t)emu->image[mark_address(emu, unit)] >> mark_shift(unit)) & ALL_MARKS;
}

static void mark_set(mdy_flash_emu_t *emu, uint32_t unit, uint32_t mark)
{
    uint8_t *const marks = &emu->image[mark_address(emu, unit)];
    *marks = (uint8_t)((*marks & ~(ALL_MARKS << mark_shift(unit))) | (mark << mark_shift(unit)));
}

static uint32_t erases_address(const mdy_flash_emu_t *emu, uint32_t sector)
{
    return memory_bytes(emu) + mark_bytes(emu) + 4U * sector;
}

uint32_t mdy_flash_emu_erases(const mdy_flash_emu_t *emu, uint32_t sector)
{
    const uint8_t *const at = &emu->image[erases_address(emu, sector)];
    return (uint32_t)at[0] | (uint32_t)at[1] << 8U | (uint32_t)at[2] << 16U | (uint32_t)at[3] << 24U;
}

/* Whether event number `at` is one of `count` from `first` on; first 0: none is. */
static bool is_due(uint32_t at, uint32_t first, uint32_t count)
{
    return first != 0U && at >= first && at - first < count;
}

static bool is_inside(const mdy_flash_emu_t *emu, uint32_t address, uint32_t n)
{
    return address <= memory_bytes(emu) && n <= memory_bytes(emu) - address;
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

static mdy_status_t sync(mdy_flash_emu_t *emu, uint32_t address, uint32_t n)
{
    return emu->sync == NULL ? MDY_OK : emu->sync(emu->context, address, &emu->image[address], n);
}

/* Sends `n` changed bytes of memory, whole units, and their marks. */
static mdy_status_t sync_units(mdy_flash_emu_t *emu, uint32_t address, uint32_t n)
{
    if (n == 0U) {
        return MDY_OK;
    }
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint32_t first = mark_address(emu, address / unit_bytes);
    const uint32_t last = mark_address(emu, (address + n) / unit_bytes - 1U);
    /* Marks and memory are two writes. A process killed between them leaves a file in which either
     * the mark or the contents say "programmed"; both are asked before a unit is programmed. */
    const mdy_status_t status = sync(emu, first, last - first + 1U);
    return status != MDY_OK ? status : sync(emu, address, n);
}

/* Counts a call; a bit turns over before one of them. */
static void count_call(mdy_flash_emu_t *emu)
{
    emu->calls++;
    if (emu->calls == emu->flip_at && emu->flip_address < memory_bytes(emu)) {
        emu->image[emu->flip_address] = (uint8_t)(emu->image[emu->flip_address] ^ (1U << (emu->flip_bit & 7U)));
        (void)sync(emu, emu->flip_address, 1);
    }
}

/* Counts an operation on [address, address + n): how much of it happens, and what it reports. */
static extent_t begin(mdy_flash_emu_t *emu, uint32_t address, uint32_t n, mdy_status_t *status)
{
    emu->operations++;
    *status = MDY_OK;
    if (emu->operations == emu->cut_at) {
        emu->is_dead = true;
        *status = MDY_FLASH;
        return emu->cut_phase == MDY_CUT_BEFORE ? NOTHING : emu->cut_phase == MDY_CUT_INSIDE ? PART : ALL;
    }
    const bool is_dead_place = emu->dead_bytes != 0U && address < emu->dead_address + emu->dead_bytes &&
                               emu->dead_address < address + n;
    if (is_dead_place || is_due(emu->operations, emu->fail_at, emu->fail_count)) {
        *status = MDY_FLASH;
        return PART;
    }
    if (is_due(emu->operations, emu->lie_at, emu->lie_count)) {
        return emu->lie == MDY_LIE_IGNORED ? NOTHING : ODD;
    }
    return ALL;
}

/* The i-th random word of the operation at hand. */
static uint32_t chance(const mdy_flash_emu_t *emu, uint32_t i)
{
    return mdy_rng(mdy_rng_key(emu->seed, 0, emu->operations, 0), i);
}

/* Half of what is left in the middle of a change can be read, as rubbish. */
static uint32_t mark_left(const mdy_flash_emu_t *emu, uint32_t i)
{
    return (chance(emu, i) & 1U) != 0U ? ALL_MARKS : PROGRAMMED;
}

void mdy_flash_emu_format(mdy_flash_emu_t *emu)
{
    const uint32_t bytes = memory_bytes(emu);
    memset(emu->image, ERASED, bytes);
    memset(&emu->image[bytes], 0, mark_bytes(emu) + 4U * sectors(emu));
}

bool mdy_flash_emu_adopt(mdy_flash_emu_t *emu, uint32_t n)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint32_t bytes = memory_bytes(emu);
    if (n == bytes) {
        for (uint32_t unit = 0; unit < bytes / unit_bytes; unit++) {
            const bool is_fresh = is_erased(&emu->image[unit * unit_bytes], unit_bytes);
            mark_set(emu, unit, is_fresh ? 0U : PROGRAMMED);
        }
        return true;
    }
    return n == bytes + mark_bytes(emu) || n == erases_address(emu, sectors(emu));
}

void mdy_flash_emu_reboot(mdy_flash_emu_t *emu)
{
    emu->operations = 0;
    emu->reads = 0;
    emu->calls = 0;
    emu->cut_at = 0;
    emu->fail_at = 0;
    emu->lie_at = 0;
    emu->read_fail_at = 0;
    emu->read_lie_at = 0;
    emu->flip_at = 0;
    emu->bad_bytes = 0;
    emu->is_dead = false;
}

mdy_status_t mdy_flash_emu_read(void *context, uint32_t address, void *dst, uint32_t n)
{
    mdy_flash_emu_t *const emu = context;
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    count_call(emu);
    emu->reads++;
    if (!is_inside(emu, address, n)) {
        return MDY_ARGUMENT;
    }
    if (emu->is_dead || is_due(emu->reads, emu->read_fail_at, emu->read_fail_count)) {
        return MDY_FLASH;
    }
    if (n == 0U) {
        return MDY_OK;
    }
    const uint32_t first = address / unit_bytes;
    const uint32_t last = (address + n - 1U) / unit_bytes;
    const uint32_t bad_end = emu->bad_address + emu->bad_bytes;
    if (emu->bad_bytes != 0U && emu->bad_address < (last + 1U) * unit_bytes && bad_end > first * unit_bytes) {
        return MDY_FLASH;
    }
    for (uint32_t unit = first; unit <= last; unit++) {
        if (mark_get(emu, unit) & TORN) {
            return MDY_FLASH;
        }
    }
    memcpy(dst, &emu->image[address], n);
    if (emu->reads == emu->read_lie_at) {
        const uint32_t bit = mdy_rng(emu->seed, emu->reads);
        uint8_t *const wrong = (uint8_t *)dst + bit / 8U % n;
        *wrong = (uint8_t)(*wrong ^ (1U << bit % 8U));
    }
    return MDY_OK;
}

static void erase_unit(mdy_flash_emu_t *emu, uint32_t unit)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    memset(&emu->image[unit * unit_bytes], ERASED, unit_bytes);
    mark_set(emu, unit, 0U);
}

/*
 * What an interrupted erase leaves: units from the bottom erased, or from the top (the header is whole, the rest is
 * not), or units here and there; and one unit in the middle of it.
 */
static void erase_partly(mdy_flash_emu_t *emu, uint32_t first, uint32_t units)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint32_t shape = chance(emu, 0) % 3U;
    const uint32_t middle = chance(emu, 1) % units;
    uint8_t *const cells = &emu->image[(first + middle) * unit_bytes];
    for (uint32_t i = 0; i < units; i++) {
        const bool is_done = shape == 0U ? i < middle : shape == 1U ? i > middle : (chance(emu, 2U + i) & 1U) != 0U;
        if (is_done && i != middle) {
            erase_unit(emu, first + i);
        }
    }
    for (uint32_t i = 0; i < unit_bytes; i++) {
        cells[i] = (uint8_t)(cells[i] | chance(emu, 2U + units + i));
    }
    mark_set(emu, first + middle, mark_left(emu, 2U + units + unit_bytes));
}

static void count_erase(mdy_flash_emu_t *emu, uint32_t sector)
{
    const uint32_t count = mdy_flash_emu_erases(emu, sector) + 1U;
    for (uint32_t i = 0; i < 4U; i++) {
        emu->image[erases_address(emu, sector) + i] = (uint8_t)(count >> (8U * i));
    }
}

mdy_status_t mdy_flash_emu_erase(void *context, uint32_t address)
{
    mdy_flash_emu_t *const emu = context;
    uint32_t sector;
    const uint32_t bytes = mdy_flash_sector(emu->geometry, address, &sector);
    count_call(emu);
    if (bytes == 0U) {
        return MDY_ARGUMENT;
    }
    if (emu->is_dead) {
        return MDY_FLASH;
    }
    mdy_status_t status;
    const extent_t extent = begin(emu, address, bytes, &status);
    if (extent == NOTHING) {
        return status;
    }
    const uint32_t first = address / emu->geometry->unit_bytes;
    const uint32_t units = bytes / emu->geometry->unit_bytes;
    if (extent == PART) {
        erase_partly(emu, first, units);
    } else {
        for (uint32_t unit = first; unit < first + units; unit++) {
            erase_unit(emu, unit);
        }
        if (extent == ODD) { /* a bit that stays programmed */
            const uint32_t bit = chance(emu, 0) % (8U * bytes);
            emu->image[address + bit / 8U] = (uint8_t)(ERASED ^ (1U << bit % 8U));
        }
    }
    count_erase(emu, sector);
    mdy_status_t synced = sync(emu, erases_address(emu, sector), 4U);
    synced = synced != MDY_OK ? synced : sync_units(emu, address, bytes);
    return status != MDY_OK ? status : synced;
}

/* Programs one unit in memory; `*done`: the unit changed, which it may even if the call fails. */
static mdy_status_t program_unit(mdy_flash_emu_t *emu, uint32_t address, const uint8_t *src, bool *done)
{
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint32_t unit = address / unit_bytes;
    uint8_t *const cells = &emu->image[address];

    *done = false;
    if (mark_get(emu, unit) != 0U || !is_erased(cells, unit_bytes)) {
        return MDY_FLASH;
    }
    mdy_status_t status;
    const extent_t extent = begin(emu, address, unit_bytes, &status);
    if (extent == NOTHING) {
        return status;
    }
    for (uint32_t i = 0; i < unit_bytes; i++) { /* bits are only ever cleared */
        const uint32_t kept = extent == PART ? chance(emu, i) : 0U;
        cells[i] = (uint8_t)(cells[i] & (src[i] | kept));
    }
    if (extent == ODD) {
        const uint32_t bit = chance(emu, 0) % (8U * unit_bytes);
        cells[bit / 8U] = (uint8_t)(cells[bit / 8U] ^ (1U << bit % 8U));
    }
    mark_set(emu, unit, extent == PART ? mark_left(emu, unit_bytes) : PROGRAMMED);
    *done = true;
    return status;
}

mdy_status_t mdy_flash_emu_program(void *context, uint32_t address, const void *src, uint32_t n)
{
    mdy_flash_emu_t *const emu = context;
    const uint32_t unit_bytes = emu->geometry->unit_bytes;
    const uint8_t *const bytes = src;
    count_call(emu);
    if (!is_inside(emu, address, n) || address % unit_bytes != 0U || n % unit_bytes != 0U) {
        return MDY_ARGUMENT;
    }
    if (emu->is_dead) {
        return MDY_FLASH;
    }
    mdy_status_t status = MDY_OK;
    uint32_t changed = 0; /* bytes from `address` on that may differ from the image outside */
    for (uint32_t at = 0; at < n && status == MDY_OK; at += unit_bytes) {
        bool done;
        status = program_unit(emu, address + at, &bytes[at], &done);
        changed = done ? at + unit_bytes : changed;
    }
    /* One sync for the whole call: on QEMU each of them costs a system call of the host. */
    const mdy_status_t synced = sync_units(emu, address, changed);
    return status != MDY_OK ? status : synced;
}

const uint8_t *mdy_flash_emu_map(void *context)
{
    const mdy_flash_emu_t *const emu = context;
    return emu->image;
}
