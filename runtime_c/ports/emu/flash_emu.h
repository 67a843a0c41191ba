/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Emulated NOR flash over memory of the caller: the rules of a real part, and power cuts on demand.
 *
 * The rules: an erase sets one whole sector to 0xFF; a program writes whole aligned units, each of
 * them once per erase. Whoever breaks them gets MDY_FLASH and an unchanged flash, so code that
 * passes here does not lean on the forgiveness of RAM.
 *
 * The image is what survives a power cut: the memory followed by the marks, two bits per unit. A
 * port keeps it in one file and follows it through the `sync` callback; image addresses below
 * geometry.bytes are memory, the ones above are marks.
 */
#ifndef MDY_FLASH_EMU_H
#define MDY_FLASH_EMU_H

#include <stdbool.h>

#include "mdy/port.h"

/** Bytes of marks for a flash of this size; the image is `bytes` plus this many bytes long. */
#define MDY_FLASH_EMU_MARK_BYTES(bytes, unit_bytes) (((bytes) / (unit_bytes) + 3U) / 4U)

/** Where in the chosen operation the power goes. */
typedef enum {
    MDY_CUT_BEFORE, /* nothing of the operation has happened */
    MDY_CUT_INSIDE, /* half of it has, and what is left behind is not a legal state */
    MDY_CUT_AFTER   /* all of it has, but the caller never learns so */
} mdy_cut_phase_t;

/** Follows a change of the image: n bytes that now stand at `address`. Errors: MDY_FLASH. */
typedef mdy_status_t (*mdy_flash_sync_t)(void *context, uint32_t address, const uint8_t *bytes,
                                         uint32_t n);

/** The emulator. The caller fills the first group and clears the rest; all memory is his. */
typedef struct {
    const mdy_flash_geometry_t *geometry; /* sector_bytes a multiple of unit_bytes */
    uint8_t *memory;                      /* geometry->bytes bytes */
    uint8_t *marks;                       /* MDY_FLASH_EMU_MARK_BYTES bytes */
    uint32_t *erases;                     /* per sector: erases that took effect, in full or half */
    mdy_flash_sync_t sync;                /* null: the image lives in memory only */
    void *context;                        /* handed to sync */

    uint32_t operations;       /* begun since the last boot: sector erases and unit programs */
    uint32_t cut_at;           /* operation during which the power is cut, from 1; 0: never */
    mdy_cut_phase_t cut_phase; /* read where cut_at is not 0 */
    bool is_dead;              /* the power is cut: everything fails until a reboot */
} mdy_flash_emu_t;

/** Makes a factory-fresh image: memory 0xFF, nothing marked, erases zero. Does not call sync. */
void mdy_flash_emu_format(mdy_flash_emu_t *emu);

/**
 * Makes the marks for memory that came without them: a unit that is not all 0xFF counts as
 * programmed, none as torn. Does not call sync.
 */
void mdy_flash_emu_adopt(mdy_flash_emu_t *emu);

/** Power comes back: operations count from 0, no cut is armed. Image and wear stay. */
void mdy_flash_emu_reboot(mdy_flash_emu_t *emu);

/** mdy_port_flash_read. Errors: MDY_ARGUMENT (range), MDY_FLASH (a torn unit is touched, dead). */
mdy_status_t mdy_flash_emu_read(const mdy_flash_emu_t *emu, uint32_t address, void *dst,
                                uint32_t n);

/** mdy_port_flash_erase. Errors: MDY_ARGUMENT (no start of a sector), MDY_FLASH (cut, sync). */
mdy_status_t mdy_flash_emu_erase(mdy_flash_emu_t *emu, uint32_t address);

/**
 * mdy_port_flash_program; units are programmed in rising order, and those before a failing one
 * stay programmed. Errors: MDY_ARGUMENT (range or alignment), MDY_FLASH (not erased, cut, sync).
 */
mdy_status_t mdy_flash_emu_program(mdy_flash_emu_t *emu, uint32_t address, const void *src,
                                   uint32_t n);

#endif
