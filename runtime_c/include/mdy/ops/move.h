/* SPDX-License-Identifier: Apache-2.0 */
/** Values put elsewhere: slices, strides, zero padding, transposes, nearest-neighbour enlargement. */
#ifndef MDY_OPS_MOVE_H
#define MDY_OPS_MOVE_H

#include "mdy/model.h"

/**
 * Rows of y[o0][o1][o2] = x[s] with s[axes[i]] = start[i] + o_i / repeat[i] * step[i]; p->zero outside x.
 *
 * Shapes   x and y as given; x is a whole tensor where axes[0] is not 0
 * Aliasing y must not overlap x
 */
void mdy_move_forward(const mdy_move_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows);

/**
 * dx: dy where forward read, zero elsewhere; dx shares dy's exponent and factor. For repeat 1 only:
 * every input value then has at most one output. Whole tensors.
 */
void mdy_move_backward(const mdy_move_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, mdy_shape_t x_shape,
                       const mdy_view_t *dx);

/** Adds the dy of every copy of pixel (iy, ix) of an enlarged x to acc (C int32). */
void mdy_move_gather(const mdy_move_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, int32_t iy, int32_t ix,
                     int32_t *acc);

#endif
