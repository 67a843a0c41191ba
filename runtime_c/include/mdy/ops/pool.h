/* SPDX-License-Identifier: Apache-2.0 */
/** Average pooling; padded pixels do not count. */
#ifndef MDY_OPS_POOL_H
#define MDY_OPS_POOL_H

#include "mdy/ops/window.h"
#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Average over windows; see ops/pool.h for its two forms. */
typedef struct {
    mdy_extent_t extent;
    int32_t mult; /* s_x / (count * s_y), or 0: means of stored values */
    int8_t shift;
    uint8_t overlap_bits; /* log2 of how many windows read one pixel, rounded up */
    int16_t x_zero, y_zero;
    int16_t origin;   /* about which means are rounded, where scales are shared */
    uint32_t scratch; /* backward of overlapping or padded windows: C int32 */
    uint16_t order;
} mdy_pool_t;

/**
 * Rows of the mean over every window.
 *
 *   mult != 0   y = clamp(requantize(sum of (x - x_zero)) + y_zero); mult holds s_x / (count * s_y), no padding
 *   mult == 0   y = sum of (x - origin) / count + origin, halves away from zero; x and y share their scale
 *
 * Shapes   x (H, W, C)   y (OH, OW, C)
 * Memory   no scratch
 * Source   TFLite's reference MEAN and AVERAGE_POOL_2D; origin is -128 for files of its uint8 scheme
 */
void mdy_pool_forward(const mdy_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows);

/**
 * Rows of dx where windows neither overlap nor are padded: every pixel of a window gets the window's dy,
 * pixels of no window get zero. The division by the count is exact: it is part of the static factor of
 * dx, which shares dy's exponent.
 */
void mdy_pool_backward(const mdy_pool_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, mdy_shape_t x_shape,
                       const mdy_view_t *dx, mdy_band_t rows);

/** Bits behind the point of what mdy_pool_gather adds. */
int mdy_pool_bits(const mdy_pool_t *p);

/** Adds dy / count of every window over pixel (iy, ix) to acc (C int32), in units of 2^-mdy_pool_bits. */
void mdy_pool_gather(const mdy_pool_t *p, mdy_shape_t x_shape, mdy_shape_t y_shape, const mdy_view_t *dy, int32_t iy,
                     int32_t ix, int32_t *acc);

/** The step: rows of y from planned tensors. */
void mdy_run_pool(mdy_t *m, const mdy_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Spreads dy over its windows; the division is part of dx's static factor. */
void mdy_back_pool(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx);

/** Where windows overlap or are padded: sums of 32 bits with the joined gradients, a slot of its own. */
void mdy_back_pool_sum(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins);

#ifdef __cplusplus
}
#endif

#endif
