/* SPDX-License-Identifier: Apache-2.0 */
/** Functions of one int8 value, as tables. */
#ifndef MDY_OPS_ACTIVATION_H
#define MDY_OPS_ACTIVATION_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A function of one value. */
typedef struct {
    const int8_t *table;  /* of -128 .. 127 */
    const int16_t *slope; /* its derivative relative to the steepest, in 2^-14 */
    uint16_t order;
} mdy_activation_t;

/** y[i] = table[x[i] + 128] for n values; y may be x. */
void mdy_activation_forward(const mdy_activation_t *p, const int8_t *x, int8_t *y, uint32_t n);

/** dy[i] = dy[i] * slope[x[i] + 128] * 2^-14, rounded, in place; the steepest slope is dx's static factor. */
void mdy_activation_backward(const mdy_activation_t *p, const int8_t *x, mdy_grad_t *dy, uint32_t n);

/** The step: rows of y from planned tensors. */
void mdy_run_activation(mdy_t *m, const mdy_activation_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                        mdy_band_t rows);

/** Multiplies dy by the slope at x, in place: dx is dy's buffer. */
void mdy_back_activation(mdy_t *m, const mdy_activation_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                         const mdy_gradient_t *dx);

#ifdef __cplusplus
}
#endif

#endif
