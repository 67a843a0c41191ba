/* SPDX-License-Identifier: Apache-2.0 */
/** Two banks in flash, each one generation: header, state, candidate weights. Format in SPEC.md. */
#ifndef MDY_STORE_H
#define MDY_STORE_H

#include "mdy/model.h"

#define MDY_STORE_FORMAT 2
#define MDY_STORE_HEADER_BYTES 64u

/** Loads the newest valid generation. Errors: MDY_EMPTY, MDY_MODEL, MDY_FLASH. */
mdy_status_t mdy_store_load(mdy_t *m);

/**
 * Starts without what the banks hold: the next commit overwrites the older bank and numbers its
 * generation after the newer one, whoever wrote it.
 */
void mdy_store_pass_over(mdy_t *m);

/** Writes state and weights + deltas to the other bank, the header last. Errors: MDY_FLASH. */
mdy_status_t mdy_store_commit(mdy_t *m);

/** Erases the first sector, header included, of the newest bank, or (all) of both. Errors: MDY_FLASH, MDY_EMPTY, MDY_MODEL. */
mdy_status_t mdy_store_forget(const mdy_t *m, int all);

/** Bytes of one bank for this model, a multiple of the sector. */
uint32_t mdy_store_bank_bytes(const mdy_model_t *model, uint32_t saved_bytes);

#endif
