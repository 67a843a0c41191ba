/* SPDX-License-Identifier: Apache-2.0 */
/** Values put elsewhere: slices, strides, zero padding, transposes, nearest-neighbour enlargement. */
#ifndef MDY_OPS_MOVE_H
#define MDY_OPS_MOVE_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Where values go: ops/move.h. Triples are by output axis. */
typedef struct {
    uint8_t axes[3];
    int16_t start[3];
    int8_t step[3];
    uint8_t repeat[3];
    int16_t zero;     /* what lies outside the input: the zero point */
    uint32_t scratch; /* backward of an enlargement: C int32 */
    uint16_t order;
} mdy_move_t;

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

/** The step: rows of y from planned tensors. */
void mdy_run_move(mdy_t *m, const mdy_move_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Puts dy back where the move took its values from; all others are zero. */
void mdy_back_move(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx);

/** Of an enlargement: the copies of each pixel in sums of 32 bits, with the joined gradients; a slot of its own. */
void mdy_back_enlarged(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins);

#ifdef __cplusplus
}
#endif

#endif
