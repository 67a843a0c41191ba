/* SPDX-License-Identifier: Apache-2.0 */
/** Functions of one int8 value, as tables. */
#ifndef MDY_OPS_ACTIVATION_H
#define MDY_OPS_ACTIVATION_H

#include "mdy/model.h"

/** y[i] = table[x[i] + 128] for n values; y may be x. */
void mdy_activation_forward(const mdy_activation_t *p, const int8_t *x, int8_t *y, uint32_t n);

/** dy[i] = dy[i] * slope[x[i] + 128] * 2^-14, rounded, in place; the steepest slope is dx's static factor. */
void mdy_activation_backward(const mdy_activation_t *p, const int8_t *x, mdy_grad_t *dy, uint32_t n);

#endif
