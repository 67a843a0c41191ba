/* SPDX-License-Identifier: Apache-2.0 */
/** Squares of weight gradients in norm units, 2^-18 of dL/dw: what clipping and the sampler's norms add up. SPEC.md, 1.8. */
#ifndef MDY_GRADIENT_NORM_H
#define MDY_GRADIENT_NORM_H

#include "mdy/fixed.h"
#include "mdy/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A sum over pixels as 32 bits; the 16-bit build gives up 8 bits of it, see mdy_reduced_exponent. */
static inline int32_t mdy_reduce(mdy_wacc_t sum)
{
    return MDY_GRAD_BITS == 16 ? mdy_clamp32(mdy_round_shift(sum, 8)) : (int32_t)sum;
}

/** The exponent of reduced sums, which carry 2^exponent before. */
static inline int mdy_reduced_exponent(int exponent)
{
    return MDY_GRAD_BITS == 16 ? exponent + 8 : exponent;
}

/**
 * The sum of (|sum| * mult * 2^exponent)^2 over `count` sums, at most 2^16, each of them rounded and at most 2^48. exponent:
 * of reduced sums in norm units. Outputs whose rate_mult is 0 are frozen and do not count.
 */
uint64_t mdy_squares(const mdy_wacc_t *sums, const uint16_t *rate_mult, uint32_t count, uint16_t mult, int exponent);

#ifdef __cplusplus
}
#endif

#endif
