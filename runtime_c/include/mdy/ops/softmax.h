/* SPDX-License-Identifier: Apache-2.0 */
/** Softmax of an int8 vector, with the bits that TFLite's kernel computes in binary32. */
#ifndef MDY_OPS_SOFTMAX_H
#define MDY_OPS_SOFTMAX_H

#include "mdy/types.h"

/** Softmax over one vector. */
typedef struct {
    const uint32_t *table; /* 256 binary32 patterns: exp(-beta * s_x * i), of which the first is 1 */
    int16_t y_zero;
    uint16_t order; /* position in the network, from the input */
} mdy_softmax_t;

/**
 * y[i] = clamp(round(256 * e[i] / sum over j of e[j]) + y_zero) with e[i] = table[max over j of x[j] - x[i]]
 *
 * Every operation rounds to binary32 (nearest, ties to even), and the sum runs from the first element to
 * the last; the final round takes halves away from zero.
 *
 * Shapes   x (n)   y (n)   n >= 1
 * Units    y has scale 1/256; the scale of x is in the table
 * Memory   no scratch
 * Aliasing y may be x; it must not overlap x otherwise
 * Errors   none; the compiler makes the table
 * Cost     n additions, n products of 24 bits, two 64-bit divisions
 * Source   TFLite's optimized_ops::Softmax for int8, without the integer table of its aarch64 build
 */
void mdy_softmax_forward(const mdy_softmax_t *p, const int8_t *x, int8_t *y, uint32_t n);

#endif
