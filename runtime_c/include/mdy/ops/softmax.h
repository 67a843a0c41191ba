/* SPDX-License-Identifier: Apache-2.0 */
/** Softmax of an int8 vector, as TFLite's reference kernel and TFLite Micro compute it. */
#ifndef MDY_OPS_SOFTMAX_H
#define MDY_OPS_SOFTMAX_H

#include "mdy/types.h"

/** Softmax over one vector. */
typedef struct {
    const int32_t *table; /* exp(-beta * s_x * i) of 31 bits for i = 0 .. 255; 0 where it does not count */
    uint16_t order;       /* position in the network, from the input */
} mdy_softmax_t;

/**
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

#endif
