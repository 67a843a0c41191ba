/* SPDX-License-Identifier: Apache-2.0 */
/** Two banks in flash, each one generation: header, state, candidate weights. Format in SPEC.md. */
#ifndef MDY_STORE_H
#define MDY_STORE_H

#include "mdy/model.h"

#define MDY_STORE_FORMAT 4
#define MDY_STORE_HEADER_BYTES 64u

/**
 * Places the banks and looks at what they hold: m->found, m->erases. The next commit will overwrite the older
 * one and number its generation after the newer, whoever wrote it. Errors: MDY_FLASH (the banks do not fit).
 */
mdy_status_t mdy_store_open(mdy_t *m);

/**
 * Loads the newest usable generation; one that cannot be read after all counts as damaged.
 * Errors: MDY_EMPTY (the state region is to be filled), MDY_MODEL (another model's or format's only).
 */
mdy_status_t mdy_store_load(mdy_t *m);

/** Writes state and weights + deltas to the other bank, the header last. Errors: MDY_FLASH. */
mdy_status_t mdy_store_commit(mdy_t *m);

/** Adds the deltas to the weights in RAM. */
void mdy_store_merge(mdy_t *m);

/** Erases the first sector, header included, of the newest bank, or (all) of both. Errors: MDY_FLASH, MDY_EMPTY, MDY_MODEL. */
mdy_status_t mdy_store_forget(const mdy_t *m, int all);

#endif
