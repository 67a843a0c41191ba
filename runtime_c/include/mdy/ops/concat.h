/* SPDX-License-Identifier: Apache-2.0 */
/** Tensors side by side along one axis. */
#ifndef MDY_OPS_CONCAT_H
#define MDY_OPS_CONCAT_H

#include "mdy/model.h"

/** Writes those values of input number `index` that lie in `rows` of y; x (H, W, C) is equal to y off the axis. */
void mdy_concat_forward(const mdy_concat_t *p, uint32_t index, mdy_shape_t x_shape, const mdy_view_t *x,
                        mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows);

/** Takes the gradient of input number `index` out of dy; exponent and factor stay. */
void mdy_concat_backward(const mdy_concat_t *p, uint32_t index, mdy_shape_t y_shape, const mdy_view_t *dy,
                         mdy_shape_t x_shape, const mdy_view_t *dx);

#endif
