/* SPDX-License-Identifier: Apache-2.0 */
/** Softmax over the channels of int8 values, as TFLite's reference kernel and TFLite Micro compute it. */
#ifndef MDY_OPS_SOFTMAX_H
#define MDY_OPS_SOFTMAX_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Shares of the channels: ops/softmax.h. */
typedef struct {
    const int32_t *table; /* exp(-beta * s_x * i) of 31 bits for i = 0 .. 255; 0 where it does not count */
    uint32_t scratch;     /* backward: C int32 */
    uint16_t order;
} mdy_softmax_t;

/**
 * One pixel.
 *
 * y[i] = clamp(256 * e[i] / sum over j of e[j] - 128) with e[i] = table[max over j of x[j] - x[i]]
 *
 * Shapes   x (n)   y (n)   1 <= n <= 4095
 * Units    y has scale 1/256 and zero point -128; the scale of x is in the table
 * Memory   no scratch
 * Aliasing y may be x; it must not overlap x otherwise
 * Errors   none; the compiler makes the table
 * Cost     n additions, n products, seven products for the reciprocal
 * Source   TFLite's reference_ops::Softmax; gemmlowp's one_over_one_plus_x_for_x_in_0_1
 */
void mdy_softmax_forward(const mdy_softmax_t *p, const int8_t *x, int8_t *y, uint32_t n);

/**
 * Adds one pixel's gradient to acc (n int32): p[i] (256 dy[i] - sum over j of p[j] dy[j]) with the shares
 * p = y + 128 that the forward pass left, without the 2^-MDY_SOFTMAX_SHIFT of its last bits.
 * Units    dL/dq_x = acc * 2^MDY_SOFTMAX_SHIFT * beta * s_x / 256
 */
void mdy_softmax_gather(const mdy_grad_t *dy, const int8_t *y, uint32_t n, int32_t *acc);

/** 16-bit gradients give up some bits, so that the products fit 32. */
#define MDY_SOFTMAX_SHIFT (MDY_GRAD_BITS - 8)

/** The step: rows of y from planned tensors. */
void mdy_run_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Gradients of each pixel, in sums of 32 bits with the joined ones; dx has a slot of its own. */
void mdy_back_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *y,
                      const mdy_gradient_t *dx, const mdy_joins_t *joins);

#ifdef __cplusplus
}
#endif

#endif
