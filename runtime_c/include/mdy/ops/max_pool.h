/* SPDX-License-Identifier: Apache-2.0 */
/** Max pooling; padded pixels do not count. */
#ifndef MDY_OPS_MAX_POOL_H
#define MDY_OPS_MAX_POOL_H

#include "mdy/ops/window.h"
#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The largest value of every window. */
typedef struct {
    mdy_extent_t extent;
    uint32_t scratch; /* backward: C int32 */
    uint16_t order;
} mdy_max_pool_t;

/** Rows of the largest value of every window; x (H, W, C), y (OH, OW, C), one scale. */
void mdy_max_pool_forward(const mdy_max_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                          const mdy_view_t *y, mdy_band_t rows);

/**
 * Adds to acc (C int32) the dy of every window whose first largest value, row by row, is pixel (iy, ix).
 * Source   the choice among equal values is PyTorch's
 */
void mdy_max_pool_gather(const mdy_max_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                         const mdy_view_t *dy, int32_t iy, int32_t ix, int32_t *acc);

/** The step: rows of y from planned tensors. */
void mdy_run_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Gradients of each pixel, in sums of 32 bits with the joined ones; dx has a slot of its own. */
void mdy_back_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                       const mdy_gradient_t *dx, const mdy_joins_t *joins);

#ifdef __cplusplus
}
#endif

#endif
