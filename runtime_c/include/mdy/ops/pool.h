/* SPDX-License-Identifier: Apache-2.0 */
/** Average pooling over windows that do not overlap, or over the whole map. */
#ifndef MDY_OPS_POOL_H
#define MDY_OPS_POOL_H

#include "mdy/model.h"

/**
 * Rows of y = requantize(sum over the window of (x - x_zero)) + y_zero; mult holds s_x / (count * s_y).
 *
 * Shapes   x (H, W, C)   y (OH, OW, C)
 * Memory   no scratch
 */
void mdy_pool_forward(const mdy_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows);

/**
 * Rows of dx: every pixel of a window gets the window's dy; pixels of no window get zero. The division
 * by the count is exact: it is part of the static factor of dx, which shares dy's exponent.
 */
void mdy_pool_backward(const mdy_pool_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, mdy_shape_t x_shape,
                       const mdy_view_t *dx, mdy_band_t rows);

#endif
