/* SPDX-License-Identifier: Apache-2.0 */
/** Parametric ReLU: a slope below zero for each channel. */
#ifndef MDY_OPS_PRELU_H
#define MDY_OPS_PRELU_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Arrays have one entry for each channel. */
typedef struct {
    const int16_t *slope;      /* in steps: |x - x_zero| * |slope| < 2^23 */
    const int16_t *derivative; /* the same slopes, relative to the steepest one or 1, in 2^-14 */
    int16_t above;             /* the derivative above zero, likewise */
    int32_t mult, below_mult;  /* s_x / s_y and s_x * step / s_y as mult * 2^(shift - 31) */
    int8_t shift, below_shift;
    int16_t x_zero, y_zero;
    uint16_t order;
} mdy_prelu_t;

/** n pixels of c channels; y may be x. The integers are those of TFLite's reference kernel. */
void mdy_prelu_forward(const mdy_prelu_t *p, const int8_t *x, int8_t *y, uint32_t n, uint32_t c);

/** dy = dy * derivative at x * 2^-14, rounded, in place, and 0 where the output saturates. */
void mdy_prelu_backward(const mdy_prelu_t *p, const int8_t *x, mdy_grad_t *dy, uint32_t n, uint32_t c);

/** The step: rows of y from planned tensors. */
void mdy_run_prelu(mdy_t *m, const mdy_prelu_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Multiplies dy by the derivative at x, in place: dx is dy's buffer. */
void mdy_back_prelu(mdy_t *m, const mdy_prelu_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                    const mdy_gradient_t *dx);

#ifdef __cplusplus
}
#endif

#endif
