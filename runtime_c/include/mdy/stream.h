/* SPDX-License-Identifier: Apache-2.0 */
/** Rows in the order of the schedule: streams, samples that come row by row, values that are made again. */
#ifndef MDY_STREAM_H
#define MDY_STREAM_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Most stages of a stream. */
#define MDY_STAGES_MAX 48

/** Runs one row of one stage of a stream. */
typedef void mdy_stages_t(mdy_t *m, uint32_t stage, mdy_band_t row);

/**
 * Several operations at once, row by row: `order` says whose next row comes, so that a tensor between two of
 * them is a ring that holds a few rows. The compiler made the order and knows how many rows each ring needs.
 */
void mdy_stream(mdy_t *m, mdy_stages_t *stages, const uint8_t *order, uint32_t count);

/**
 * Rows of a sample that is not there as a whole, from the load hook. In training it is mirrored and moved as this step
 * drew; a sample that is there as a whole is changed in place, all of it at once.
 */
void mdy_load(mdy_t *m, const mdy_tensor_t *x, mdy_band_t rows);

/** Whether the way back needs rows made again for nodes up to `order`. */
static inline int mdy_again(const mdy_t *m, uint16_t order)
{
    return m->deepest != MDY_FROZEN && order >= m->deepest && !m->aborted;
}

/** The clamp mask of rows of a tensor that is still there on the way back; low and high: its activation's range. */
void mdy_run_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_tensor_t *y, int16_t low, int16_t high,
                  mdy_band_t rows);

#ifdef __cplusplus
}
#endif

#endif
