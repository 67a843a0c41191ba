/* SPDX-License-Identifier: Apache-2.0 */
/** Average pooling; padded pixels do not count. */
#ifndef MDY_OPS_POOL_H
#define MDY_OPS_POOL_H

#include "mdy/model.h"

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
void mdy_pool_gather(const mdy_pool_t *p, mdy_shape_t x_shape, mdy_shape_t y_shape, const mdy_view_t *dy,
                     int32_t iy, int32_t ix, int32_t *acc);

#endif
