/* SPDX-License-Identifier: Apache-2.0 */
/** A constant summand for each channel. */
#ifndef MDY_OPS_OFFSET_H
#define MDY_OPS_OFFSET_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A sum of a tensor and a constant with a scale of its own. Source: TFLite's reference ADD. */
typedef struct {
    const int32_t *summand; /* (C,): shifted left by 20 and rescaled, as the other input will be */
    int32_t x_mult, y_mult; /* Q31 multipliers */
    int8_t x_shift, y_shift;
    int16_t x_zero, y_zero;
    int16_t act_min, act_max;
    mdy_mask_t mask;
    uint16_t order;
} mdy_offset_t;

/**
 * n pixels of c channels: y = clamp(x + summand), in TFLite's arithmetic. Backward needs no kernel: s_x / s_y
 * is a static factor of the gradient.
 *
 * Aliasing y may be x
 */
void mdy_offset_forward(const mdy_offset_t *p, const int8_t *x, int8_t *y, uint32_t n, uint32_t c);

/** The step: rows of y from planned tensors. The clamp mask is kept in training. */
void mdy_run_offset(mdy_t *m, const mdy_offset_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

#ifdef __cplusplus
}
#endif

#endif
