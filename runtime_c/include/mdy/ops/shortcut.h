/* SPDX-License-Identifier: Apache-2.0 */
/** Strided pixels and added zero channels: the parameter-free shortcut of CIFAR ResNets. */
#ifndef MDY_OPS_SHORTCUT_H
#define MDY_OPS_SHORTCUT_H

#include "mdy/model.h"

/** Rows of y[oy][ox][before + c] = x[oy * stride][ox * stride][c]; other channels hold p->zero. */
void mdy_shortcut_forward(const mdy_shortcut_t *p, mdy_shape_t x_shape, const mdy_view_t *x,
                          mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows);

/** Rows of dx: dy where forward read, zero elsewhere; dx shares dy's exponent and factor. */
void mdy_shortcut_backward(const mdy_shortcut_t *p, mdy_shape_t y_shape, const mdy_view_t *dy,
                           mdy_shape_t x_shape, const mdy_view_t *dx, mdy_band_t rows);

#endif
