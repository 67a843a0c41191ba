/* SPDX-License-Identifier: Apache-2.0 */
/** The rounding arithmetic of the whole runtime: one helper for each kind of shift, none with float. */
#ifndef MDY_FIXED_H
#define MDY_FIXED_H

#include <stdint.h>

#include "mdy/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/** n + 1; a count that has reached its largest stays there. */
static inline uint32_t mdy_count(uint32_t n)
{
    return n < UINT32_MAX ? n + 1 : n;
}

static inline int32_t mdy_clamp32(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

/** floor(x / 2^shift + 1/2) for 0 <= shift <= 62. Right shifts of negative numbers are arithmetic. */
static inline int64_t mdy_round_shift(int64_t x, int shift)
{
    return shift == 0 ? x : (x + ((int64_t)1 << (shift - 1))) >> shift;
}

/** x * 2^exponent, rounded as above for a negative exponent, saturated to int32 for a positive one. */
static inline int32_t mdy_scale2(int32_t x, int exponent)
{
    if (exponent <= 0) {
        return exponent < -62 ? 0 : (int32_t)mdy_round_shift(x, -exponent);
    }
    return mdy_clamp32((int64_t)x * ((int64_t)1 << (exponent > 31 ? 31 : exponent)));
}

/** a * b * 2^-31, halves towards +infinity; not for a = b = -2^31. Source: gemmlowp's doubling high multiply. */
static inline int32_t mdy_high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/** x / 2^n, halves away from zero; 0 <= n <= 31. Source: gemmlowp. */
static inline int32_t mdy_divide_pot(int32_t x, int n)
{
    const int32_t mask = (int32_t)((1u << n) - 1u);
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> n) + ((x & mask) > threshold ? 1 : 0);
}

/**
 * acc * mult * 2^(shift - 31) with the two roundings of TFLite's reference kernels: the product's
 * high half with halves towards +infinity, then the right shift with halves away from zero.
 * 0 <= mult < 2^31, -31 <= shift <= 30; a left shift saturates.
 * With MDY_ROUND_ONCE: the exact product, rounded once, halves up.
 */
static inline int32_t mdy_requantize(int32_t acc, int32_t mult, int shift)
{
#if MDY_ROUND_ONCE
    return mdy_clamp32(mdy_round_shift((int64_t)acc * mult, 31 - shift));
#else
    const int32_t x = shift > 0 ? mdy_clamp32((int64_t)acc * ((int64_t)1 << shift)) : acc;
    const int32_t high = mdy_high_mul(x, mult);
    return shift >= 0 ? high : mdy_divide_pot(high, -shift);
#endif
}

/** sum / count: halves away from zero, or with MDY_ROUND_ONCE to the even number; count > 0. */
static inline int32_t mdy_mean(int32_t sum, int32_t count)
{
    const int32_t size = sum < 0 ? -sum : sum;
    int32_t mean = (size + count / 2) / count;
#if MDY_ROUND_ONCE
    mean -= 2 * (size % count) == count ? mean & 1 : 0;
#endif
    return sum < 0 ? -mean : mean;
}

/** Whether mdy_usual_shift is defined: by far most updates of weights shift by so much. */
static inline int mdy_is_usual_shift(int shift)
{
    return shift > 32 && shift < 64;
}

/** mdy_stochastic_shift for such shifts: the high word of a sum, to which the low word brings 1 at most. */
static inline int32_t mdy_usual_shift(int64_t x, int shift, uint32_t random)
{
    const int more = shift - 32;
    const int32_t high = (int32_t)(x >> 32);
    const uint32_t low = (uint32_t)high << (32 - more) | (uint32_t)x >> more;
    return (high >> more) + (low + random < low ? 1 : 0);
}

/**
 * x / 2^shift, rounded up with the probability of the fraction; `random` is uniform in 32 bits.
 * A negative shift multiplies and saturates; below 2^-32 the fraction's tail is dropped.
 */
static inline int32_t mdy_stochastic_shift(int64_t x, int shift, uint32_t random)
{
    if (mdy_is_usual_shift(shift)) {
        return mdy_usual_shift(x, shift, random);
    }
    if (shift <= 0) {
        return mdy_clamp32((int64_t)mdy_clamp32(x) * ((int64_t)1 << (shift < -31 ? 31 : -shift)));
    }
    if (shift > 32) {
        x >>= shift > 95 ? 63 : shift - 32;
        shift = 32;
    }
    return mdy_clamp32((x + (int64_t)(random >> (32 - shift))) >> shift);
}

/** Limits to the range that is symmetric about 0. */
static inline int16_t mdy_clamp16(int64_t x)
{
    return (int16_t)(x > INT16_MAX ? INT16_MAX : x < -INT16_MAX ? -INT16_MAX : x);
}

/** value + zero, limited to [low, high]; all but the value are int8. The sum is not made where it could overflow. */
static inline int8_t mdy_output8(int32_t value, int32_t zero, int32_t low, int32_t high)
{
    return (int8_t)(value < low - zero ? low : value > high - zero ? high : value + zero);
}

static inline int8_t mdy_clamp8(int32_t x, int32_t low, int32_t high)
{
    return (int8_t)(x < low ? low : x > high ? high : x);
}

/** 16 * log2(x), linear between octaves from the four bits behind the leading one; at most 1.4 low; x > 0. */
int32_t mdy_log2_16(uint32_t x);

/** floor(sqrt(x)). */
uint32_t mdy_isqrt(uint64_t x);

/** 2^-x in Q30 for x >= 0 in Q16; absolute error below 2^-15. */
uint32_t mdy_exp2_neg(uint32_t x);

/** Natural logarithm in Q16 of x / 2^30, for x > 0; absolute error below 2^-12. */
int32_t mdy_ln_q30(uint64_t x);

/** cos^2(pi/2 * u) in Q16 for u in [0, 1] given in Q16: the cosine schedule's factor, within 2^-13. */
uint32_t mdy_cos2(uint32_t u);

/**
 * A norm in 16 bits: value = (code & 2047) << (code >> 11), rounded down to the 11 leading bits. Codes are in the
 * order of their values, 0 and 1 are themselves.
 */
uint16_t mdy_norm_pack(uint32_t norm);
uint32_t mdy_norm_unpack(uint16_t code);

#ifdef __cplusplus
}
#endif

#endif
