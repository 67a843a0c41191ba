/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Emulated NOR flash over memory of the caller: the rules of a real part, and on demand its faults and power cuts.
 *
 * The rules: an erase sets one whole sector to 0xFF; a program writes whole aligned units, each of
 * them once per erase. Whoever breaks them gets MDY_FLASH and an unchanged flash, so code that
 * passes here does not lean on the forgiveness of RAM.
 *
 * The image is what survives a power cut: the flash's bytes, then two marks per unit, then one count of erases
 * per sector (four bytes, the lowest first). A port keeps it in one file and follows it through the `sync` callback.
 */
#ifndef MDY_FLASH_EMU_H
#define MDY_FLASH_EMU_H

#include <stdbool.h>

#include "mdy/flash.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of an image: so many bytes of flash in units, and so many sectors. */
#define MDY_FLASH_EMU_MARK_BYTES(bytes, unit_bytes) (((bytes) / (unit_bytes) + 3U) / 4U)
#define MDY_FLASH_EMU_IMAGE_BYTES(bytes, unit_bytes, sectors)                                                          \
    ((bytes) + MDY_FLASH_EMU_MARK_BYTES(bytes, unit_bytes) + 4U * (sectors))

/** Where in the chosen operation the power goes. */
typedef enum {
    MDY_CUT_BEFORE, /* nothing of the operation has happened */
    MDY_CUT_INSIDE, /* a part of it has, and what is left behind is not a legal state */
    MDY_CUT_AFTER   /* all of it has, but the caller never learns so */
} mdy_cut_phase_t;

/** What an operation does that reports success. */
typedef enum {
    MDY_LIE_IGNORED, /* nothing */
    MDY_LIE_WRONG    /* all of it, but for one bit */
} mdy_lie_t;

/** Follows a change of the image: n bytes that now stand at `address`. Errors: MDY_FLASH. */
typedef mdy_status_t (*mdy_flash_sync_t)(void *context, uint32_t address, const uint8_t *bytes, uint32_t n);

/** The emulator. The caller fills the first group and clears the rest; all memory is his. */
typedef struct {
    const mdy_flash_geometry_t *geometry; /* sectors are multiples of the unit */
    uint8_t *image;                       /* MDY_FLASH_EMU_IMAGE_BYTES bytes */
    mdy_flash_sync_t sync;                /* null: the image lives in memory only */
    void *context;                        /* handed to sync */

    uint32_t operations; /* begun since the last boot: sector erases and unit programs */
    uint32_t reads;      /* likewise, calls */
    uint32_t calls;      /* likewise, of all kinds */

    /* Faults. What a part of an operation leaves behind is drawn from `seed` and the operation's number. */
    uint32_t cut_at;           /* operation during which the power is cut, from 1; 0: never */
    mdy_cut_phase_t cut_phase; /* read where cut_at is not 0 */
    uint32_t fail_at;          /* first operation that happens in part only and reports so; 0: none */
    uint32_t fail_count;       /* how many operations in a row fail so */
    uint32_t lie_at;           /* first operation that does not do what it reports; 0: none */
    uint32_t lie_count;        /* how many in a row */
    mdy_lie_t lie;             /* read where lie_at is not 0 */
    uint32_t dead_address;     /* erases of a sector, and programs, that touch [dead_address, + dead_bytes) happen in */
    uint32_t dead_bytes;       /* part and report so, for good */
    uint32_t read_fail_at;     /* first read that fails; 0: none */
    uint32_t read_fail_count;  /* how many in a row */
    uint32_t read_lie_at;      /* read that gives one bit wrong; 0: none */
    uint32_t flip_at;          /* call before which a bit of memory turns over, from 1; 0: never */
    uint32_t flip_address;     /* its byte */
    uint32_t flip_bit;         /* 0 to 7 */
    uint32_t bad_address;      /* reads of a unit that has a byte in [bad_address, + bad_bytes) fail, */
    uint32_t bad_bytes;        /* as on a part whose error correction gives up */
    uint32_t seed;
    bool is_dead; /* the power is cut: everything fails until a reboot */
} mdy_flash_emu_t;

/** Makes a factory-fresh image: memory 0xFF, nothing marked, erases zero. Does not call sync. */
void mdy_flash_emu_format(mdy_flash_emu_t *emu);

/**
 * Completes an image of which only the first n bytes came, into a formatted one: the memory alone (a unit that is
 * not all 0xFF counts as programmed, none as torn), memory and marks (no sector has been erased yet), or all of
 * it. Does not call sync. False where n is none of these: the image is another flash's.
 */
bool mdy_flash_emu_adopt(mdy_flash_emu_t *emu, uint32_t n);

/** Power comes back: operations count from 0, no fault is armed, but for a dead place. Image and wear stay. */
void mdy_flash_emu_reboot(mdy_flash_emu_t *emu);

/** Erases of a sector that took effect, in full or in part, over the life of the image. */
uint32_t mdy_flash_emu_erases(const mdy_flash_emu_t *emu, uint32_t sector);

/*
 * The callbacks of a mdy_flash_t whose context is the emulator.
 *
 * Errors: MDY_ARGUMENT (range, alignment, no start of a sector), MDY_FLASH (fault, dead, sync; of read, a torn or bad
 * unit; of program, not erased). Units are programmed in rising order, and those before a failing one stay programmed.
 */
mdy_status_t mdy_flash_emu_read(void *context, uint32_t address, void *dst, uint32_t n);
mdy_status_t mdy_flash_emu_erase(void *context, uint32_t address);
mdy_status_t mdy_flash_emu_program(void *context, uint32_t address, const void *src, uint32_t n);
const uint8_t *mdy_flash_emu_map(void *context);

#ifdef __cplusplus
}
#endif

#endif
