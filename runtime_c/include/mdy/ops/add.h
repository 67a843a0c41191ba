/* SPDX-License-Identifier: Apache-2.0 */
/** Element-wise sum of two int8 tensors with their own scales. */
#ifndef MDY_OPS_ADD_H
#define MDY_OPS_ADD_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An element-wise sum of two tensors, each with its own scale. Source: TFLite's reference ADD. */
typedef struct {
    int32_t a_mult, b_mult, y_mult; /* Q31 multipliers; inputs are first shifted left by 20 */
    int8_t a_shift, b_shift, y_shift;
    int16_t a_zero, b_zero, y_zero;
    int16_t act_min, act_max;
    mdy_mask_t mask;
    uint16_t order;
} mdy_add_t;

/**
 * Rows of y = clamp(a + b), in TFLite's arithmetic: both inputs shifted left by 20, rescaled, summed,
 * rescaled. Backward needs no kernel: each branch's s_in / s_y is a static factor of its gradient.
 *
 * Shapes   a, b, y (H, W, C), taken from the views' row lengths
 * Aliasing y may be a or b
 * Source   TFLite reference ADD
 */
void mdy_add_forward(const mdy_add_t *p, const mdy_view_t *a, const mdy_view_t *b, const mdy_view_t *y,
                     mdy_band_t rows);

/** The step: rows of y from planned tensors. The clamp mask is kept in training. */
void mdy_run_add(mdy_t *m, const mdy_add_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b, const mdy_tensor_t *y,
                 mdy_band_t rows);

#ifdef __cplusplus
}
#endif

#endif
