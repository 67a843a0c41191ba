/* SPDX-License-Identifier: Apache-2.0 */
/** Element-wise product of two int8 tensors; the second may hold one value per channel. */
#ifndef MDY_OPS_MUL_H
#define MDY_OPS_MUL_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An element-wise product; b may hold one value per channel. Source: TFLite's reference MUL. */
typedef struct {
    int32_t mult; /* s_a * s_b / s_y */
    int8_t shift;
    int16_t a_zero, b_zero, y_zero;
    int16_t act_min, act_max;
    mdy_mask_t mask;
    uint32_t scratch; /* backward: C int32 */
    uint16_t order;
} mdy_mul_t;

/**
 * Rows of y = clamp(requantize((a - a_zero) * (b - b_zero)) + y_zero); mult holds s_a * s_b / s_y.
 *
 * Shapes   a, y (H, W, C)   b (H, W, C) or (1, 1, C), by its view's rows
 * Aliasing y may be a
 * Source   TFLite reference MUL
 */
void mdy_mul_forward(const mdy_mul_t *p, const mdy_view_t *a, mdy_shape_t b_shape, const mdy_view_t *b,
                     mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows);

/**
 * Adds dy * (other - zero) of one pixel to acc (n int32), without its last `shift` bits.
 * Units    dL/dq of one factor = acc * 2^shift * s_a s_b / s_y
 */
void mdy_mul_gather(const mdy_grad_t *dy, const int8_t *other, int32_t zero, uint32_t n, int shift, int32_t *acc);

/**
 * The bits that terms give up, so that 32 bits hold a sum over so many pixels: GRAD_BITS - 8, or more of large maps.
 * At most MDY_MUL_PIXELS of them; the compiler refuses more.
 */
int mdy_mul_shift(uint32_t pixels);

#define MDY_MUL_PIXELS (UINT32_C(1) << 24)

/** The step: rows of y from planned tensors. The clamp mask is kept in training. */
void mdy_run_mul(mdy_t *m, const mdy_mul_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b, const mdy_tensor_t *y,
                 mdy_band_t rows);

/** Gradients of both factors, in sums of 32 bits with the joined ones; either target may be NULL. */
void mdy_back_mul(mdy_t *m, const mdy_mul_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *a, const mdy_tensor_t *b,
                  const mdy_gradient_t *da, const mdy_gradient_t *db, const mdy_joins_t *a_joins,
                  const mdy_joins_t *b_joins);

#ifdef __cplusplus
}
#endif

#endif
