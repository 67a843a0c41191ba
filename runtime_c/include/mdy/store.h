/* SPDX-License-Identifier: Apache-2.0 */
/** Two banks in flash, each with one generation: found, loaded, written, forgotten. SPEC.md, section 5. */
#ifndef MDY_STORE_H
#define MDY_STORE_H

#include "mdy/generation.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Places the banks and looks at what they hold: m->found, m->erases. The next commit will overwrite the older
 * one and number its generation after the newer, whoever wrote it. Errors: MDY_FLASH (the banks do not fit).
 */
mdy_status_t mdy_store_open(mdy_t *m);

/**
 * Loads the newest usable generation; one that cannot be read after all, or holds impossible values, counts as damaged.
 * Errors: MDY_EMPTY (the state region is to be filled), MDY_MODEL (another model's or format's only).
 */
mdy_status_t mdy_store_load(mdy_t *m);

/** Loads the generation in use once more. Errors: MDY_EMPTY (there is none), MDY_DAMAGED (it is no longer what was loaded). */
mdy_status_t mdy_store_reload(mdy_t *m);

/**
 * Writes state and weights + deltas to the other bank, reads them back, and writes the header last. What the flash
 * refuses is tried once more, from the erase on. Errors: MDY_FLASH (m->fault), MDY_DAMAGED (the generation in use is
 * no longer what was loaded; found before the erase, the other bank stays).
 */
mdy_status_t mdy_store_commit(mdy_t *m);

/** The port's read, tried twice: a part whose error correction gave up may succeed then. Errors: those of the port. */
mdy_status_t mdy_store_read(const mdy_flash_t *flash, uint32_t address, void *dst, uint32_t n);

/** Address of the weights in the bank in use. */
uint32_t mdy_store_weights(const mdy_t *m);

/** Erases the first sector, header included, of the newest bank. Errors: MDY_FLASH (m->fault), MDY_EMPTY, MDY_MODEL. */
mdy_status_t mdy_store_roll_back(mdy_t *m);

/** Erases the first sector of both, the newest bank's last, or (wipe) then all others. Errors: MDY_FLASH (m->fault). */
mdy_status_t mdy_store_reset(mdy_t *m, int wipe);

#ifdef __cplusplus
}
#endif

#endif
