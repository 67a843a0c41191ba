/* SPDX-License-Identifier: Apache-2.0 */
/** The steps that generated code calls, one line each, in the order of the schedule. */
#ifndef MDY_TRAIN_H
#define MDY_TRAIN_H

#include "mdy/model.h"
#include "mdy/ops/softmax.h"

/** The views of a planned tensor and gradient: all of their rows, or a ring. */
mdy_view_t mdy_view(const mdy_t *m, const mdy_tensor_t *t);
mdy_view_t mdy_grad_view(const mdy_t *m, const mdy_gradient_t *g);

/** Row `row` of the clamp mask of a tensor of that shape. */
uint8_t *mdy_mask_row(const mdy_t *m, const mdy_mask_t *mask, mdy_shape_t shape, int32_t row);

/** The weights that a layer reads now: the active bank's, or the factory's. */
const int8_t *mdy_layer_weights(const mdy_t *m, const mdy_layer_t *layer);

/** The selected channels of a layer in this epoch; count 0 when it is frozen. */
mdy_selected_t mdy_layer_selected(const mdy_t *m, const mdy_layer_t *layer);

/** Calls the yield hook; 0 when the step was aborted. */
int mdy_go_on(mdy_t *m);

/** Most stages of a stream. */
#define MDY_STAGES_MAX 48

/** Runs one row of one stage of a stream. */
typedef void mdy_stages_t(mdy_t *m, uint32_t stage, mdy_band_t row);

/**
 * Several operations at once, row by row: `order` says whose next row comes, so that a tensor between two of
 * them is a ring that holds a few rows. The compiler made the order and knows how many rows each ring needs.
 */
void mdy_stream(mdy_t *m, mdy_stages_t *stages, const uint8_t *order, uint32_t count);

/** Rows of a sample that is not there as a whole, from the load hook; an input that is there stays. */
void mdy_load(mdy_t *m, const mdy_tensor_t *x, mdy_band_t rows);

/** Whether the way back needs rows made again for nodes up to `order`. */
static inline int mdy_again(const mdy_t *m, uint16_t order)
{
    return m->deepest != MDY_FROZEN && order >= m->deepest && !m->aborted;
}

/**
 * Forward of output rows of one operation. A weighted layer gathers the selected channels of the rows of x
 * that pass, computes y with the deltas' correction, and keeps the clamp mask; gathering and masks happen in
 * training steps only.
 */
void mdy_run_layer(mdy_t *m, const mdy_layer_t *layer, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_add(mdy_t *m, const mdy_add_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_mul(mdy_t *m, const mdy_mul_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_pool(mdy_t *m, const mdy_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_activation(mdy_t *m, const mdy_activation_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_move(mdy_t *m, const mdy_move_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_tensor_t *x,
                    const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);
void mdy_run_head(mdy_t *m, const mdy_head_t *p);

/** The clamp mask of rows of a tensor that is still there on the way back; low and high: its activation's range. */
void mdy_run_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_tensor_t *y, int16_t low,
                  int16_t high, mdy_band_t rows);

/**
 * The following do nothing for nodes below the epoch's deepest selected layer. dy has been masked before: as it
 * was stored, or by mdy_back_mask, in place.
 */
void mdy_back_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_gradient_t *dy, mdy_band_t rows);

/** Copies rows of dy; the exponent is the same, scales are static factors. */
void mdy_back_copy(mdy_t *m, uint16_t order, const mdy_gradient_t *dy, const mdy_gradient_t *dx, mdy_band_t rows);

/** Rows of a layer's dx from dy and the joined gradients (NULL: none). */
void mdy_back_input(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                    const mdy_joins_t *joins, mdy_band_t rows);

/** Adds what rows of dy contribute to the weight gradients at `sums`: an offset in the planned region. */
void mdy_back_weights(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums,
                      mdy_band_t rows);

/**
 * Updates the selected channels, after the last read of their weights: from the sums of mdy_back_weights, or
 * from the whole of dy where `sums` is MDY_NONE.
 */
void mdy_back_update(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums);

/** Spreads dy over its windows; the division is part of dx's static factor. */
void mdy_back_pool(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx);

/** Puts dy back where the move took its values from; all others are zero. */
void mdy_back_move(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx);

/** Takes one input's part out of dy. dx may be NULL. */
void mdy_back_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_gradient_t *dy,
                     const mdy_gradient_t *dx);

/** Copies dy under another shape. */
void mdy_back_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx);

/** Multiplies dy by the slope at x, in place: dx is dy's buffer. */
void mdy_back_activation(mdy_t *m, const mdy_activation_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                         const mdy_gradient_t *dx);

/** The following sum in 32 bits, take joins along, and open a slot for dx; dx may be NULL. */
void mdy_back_mul(mdy_t *m, const mdy_mul_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *a,
                  const mdy_tensor_t *b, const mdy_gradient_t *da, const mdy_gradient_t *db,
                  const mdy_joins_t *a_joins, const mdy_joins_t *b_joins);
void mdy_back_pool_sum(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins);
void mdy_back_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                       const mdy_gradient_t *dx, const mdy_joins_t *joins);
void mdy_back_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *y,
                      const mdy_gradient_t *dx, const mdy_joins_t *joins);
void mdy_back_enlarged(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins);

/** Sums gradients of one tensor that no layer's own pass can join. */
void mdy_back_sum(mdy_t *m, uint16_t order, const mdy_gradient_t *dx, const mdy_joins_t *joins,
                  uint32_t scratch);

#endif
