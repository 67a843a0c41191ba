/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What an application writes as plain numbers, as the runtime keeps them: learning rate, clip, values of a sensor.
 *
 * MDY_RATE and MDY_CLIP are constant expressions: they may stand in the initialiser of a static object, the compiler does
 * the arithmetic, and the device has none of it. Both give exactly what medyate itself sends to a target for the same
 * number: recipe.py, arithmetic/scheme.py, sample/policy.py. A number that is out of range divides by zero, which does
 * not compile in a static object and is a warning elsewhere.
 */
#ifndef MDY_SETUP_H
#define MDY_SETUP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The nearest integer of x >= 0, halves to even. */
#define MDY_TWICE_(x) ((uint64_t)((x) * 2.0))
#define MDY_NEAREST_(x)                                                                                                \
    ((uint32_t)(MDY_TWICE_(x) >> 1) +                                                                                  \
     (uint32_t)((MDY_TWICE_(x) & 1u) != 0 && ((MDY_TWICE_(x) & 2u) != 0 || (x) * 2.0 > (double)MDY_TWICE_(x))))

/* floor(log2(x)) for x in [2^-30, 2^10). */
#define MDY_OCTAVES4_(x) (((x) >= 1.0) + ((x) >= 2.0) + ((x) >= 4.0) + ((x) >= 8.0))
#define MDY_LOG2_(x)                                                                                                   \
    (MDY_OCTAVES4_((x) * 1073741824.0) + MDY_OCTAVES4_((x) * 67108864.0) + MDY_OCTAVES4_((x) * 4194304.0) +            \
     MDY_OCTAVES4_((x) * 262144.0) + MDY_OCTAVES4_((x) * 16384.0) + MDY_OCTAVES4_((x) * 1024.0) +                      \
     MDY_OCTAVES4_((x) * 64.0) + MDY_OCTAVES4_((x) * 4.0) + MDY_OCTAVES4_((x) * 0.25) +                                \
     MDY_OCTAVES4_((x) * 0.015625) - 31)

/* 1, or a division by zero. */
#define MDY_IN_RANGE_(x, low, end) (1u / (uint32_t)((x) >= (low) && (x) < (end)))

/* The mantissa in [2^14, 2^15]: the upper end is the lower one of the next exponent. */
#define MDY_RATE_ROUNDED_(rate) MDY_NEAREST_((rate) * (double)((uint64_t)1 << (14 - MDY_LOG2_(rate))))

/** mdy_schedule_t.rate_mult for a rate from 2^-30 up to 1024. Never 0: inference needs no schedule at all. */
#define MDY_RATE_MULT(rate)                                                                                            \
    (MDY_IN_RANGE_(rate, 9.3132257461547852e-10, 1024.0) *                                                             \
     (MDY_RATE_ROUNDED_(rate) - (MDY_RATE_ROUNDED_(rate) >> 15 << 14)))

/** mdy_schedule_t.rate_exponent for the same rate. */
#define MDY_RATE_EXPONENT(rate) (MDY_LOG2_(rate) - 14 + (int32_t)(MDY_RATE_ROUNDED_(rate) >> 15))

/** Both, which begin a mdy_schedule_t: {MDY_RATE(0.02), 0, 0, 0, MDY_CLIP(0.3)} is a constant rate of 0.02. */
#define MDY_RATE(rate) MDY_RATE_MULT(rate), MDY_RATE_EXPONENT(rate)

/* A norm with 18 bits behind the point, and by how much its 11 leading bits are shifted. */
#define MDY_CLIP_NORM_(norm) MDY_NEAREST_((norm) * 262144.0)
#define MDY_CLIP_SHIFT_(n)                                                                                             \
    (((n) >> 11 != 0) + ((n) >> 12 != 0) + ((n) >> 13 != 0) + ((n) >> 14 != 0) + ((n) >> 15 != 0) + ((n) >> 16 != 0) + \
     ((n) >> 17 != 0) + ((n) >> 18 != 0) + ((n) >> 19 != 0) + ((n) >> 20 != 0) + ((n) >> 21 != 0) + ((n) >> 22 != 0) + \
     ((n) >> 23 != 0) + ((n) >> 24 != 0) + ((n) >> 25 != 0) + ((n) >> 26 != 0) + ((n) >> 27 != 0) + ((n) >> 28 != 0))

/** mdy_schedule_t.clip for a norm from 0.001 up to 1024. No clip at all is a plain 0. */
#define MDY_CLIP(norm)                                                                                                 \
    ((uint16_t)(MDY_IN_RANGE_(norm, 0.001, 1024.0000000000002) *                                                       \
                ((uint32_t)MDY_CLIP_SHIFT_(MDY_CLIP_NORM_(norm)) << 11 |                                               \
                 MDY_CLIP_NORM_(norm) >> MDY_CLIP_SHIFT_(MDY_CLIP_NORM_(norm)))))

/** From the values of a sensor to those of the network: (value * mult + bias) / 2^shift, rounded down. */
typedef struct {
    int64_t bias;
    int32_t mult;
    uint8_t shift;
} mdy_scaler_t;

/**
 * One value of a sample: `value` in Q16 and in the unit of the data that the model was compiled with, limited to what the
 * network's input can hold. Within one step of what medyate feeds, and the same but for values on the edge of two steps.
 */
static inline int8_t mdy_scale(const mdy_scaler_t *scaler, int32_t value)
{
    const int64_t steps = ((int64_t)value * scaler->mult + scaler->bias) >> scaler->shift;
    return (int8_t)(steps < INT8_MIN ? INT8_MIN : steps > INT8_MAX ? INT8_MAX : steps);
}

#ifdef __cplusplus
}
#endif

#endif
