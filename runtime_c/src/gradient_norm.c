/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/gradient_norm.h"

/* Norm units: one channel's |dL/dw| is clipped here, so that 2^16 squares fit 64 bits. */
#define NORM_MAX ((int64_t)1 << 24)

/* |sum| * mult * 2^exponent squared. */
static uint64_t squared(int32_t sum, uint16_t mult, int exponent)
{
    int64_t value = (int64_t)(sum < 0 ? -(int64_t)sum : sum) * mult;
    if (exponent <= 0) {
        value = exponent < -62 ? 0 : mdy_round_shift(value, -exponent);
    } else {
        value = exponent > 14 ? (value != 0 ? NORM_MAX : 0) : value * ((int64_t)1 << exponent);
    }
    value = value > NORM_MAX ? NORM_MAX : value;
    return (uint64_t)value * (uint64_t)value;
}

/* x / 2^shift for 1 <= shift <= 31, of which 32 bits are asked for. */
static inline uint32_t low_word(uint64_t x, uint32_t shift)
{
    return (uint32_t)(x >> 32) << (32 - shift) | (uint32_t)x >> shift;
}

/* squared() for exponents of -31 to -1: nearly all there are. */
static inline uint64_t squared_small(int32_t sum, uint32_t mult, uint32_t shift)
{
    const uint32_t half = UINT32_C(1) << (shift - 1);
    const uint64_t scaled = (uint64_t)(sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum) * mult + half;
    const uint32_t low = low_word(scaled, shift);
    const uint32_t value = scaled >> 32 >> shift != 0 || low > NORM_MAX ? (uint32_t)NORM_MAX : low;
    return (uint64_t)value * value;
}

uint64_t mdy_squares(const mdy_wacc_t *sums, const uint16_t *rate_mult, uint32_t count, uint16_t mult, int exponent)
{
    const int is_small = exponent <= -1 && exponent >= -31;
    uint64_t squares = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t sum = mdy_reduce(sums[i]);
        if (sum != 0 && rate_mult[i] != 0) {
            squares += is_small ? squared_small(sum, mult, (uint32_t)-exponent) : squared(sum, mult, exponent);
        }
    }
    return squares;
}
