/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Instructions of the DSP extension that kernels of its family use, each as one function: the instruction itself where
 * the core has it, else what it computes, so that the family can be tested on any machine.
 *
 * Source   Armv7-M Architecture Reference Manual, A7.7: PKHBT, PKHTB, SMLAD, SMMLA, SSAT, SSUB8, SXTAB16, SXTB16
 */
#ifndef MDY_SIMD_H
#define MDY_SIMD_H

#include <stdint.h>
#include <string.h>

#include "mdy/fixed.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Four bytes from anywhere; the first is the lowest. */
static inline uint32_t mdy_load4(const int8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#define MDY_DSP 1 /* the instructions are there */

static inline uint32_t mdy_even(uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(bytes));
    return result;
}

static inline uint32_t mdy_odd(uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(bytes));
    return result;
}

static inline uint32_t mdy_add_even(uint32_t halves, uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(halves), "r"(bytes));
    return result;
}

static inline uint32_t mdy_add_odd(uint32_t halves, uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(halves), "r"(bytes));
    return result;
}

static inline uint32_t mdy_lows(uint32_t first, uint32_t second)
{
    uint32_t result;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(result) : "r"(first), "r"(second));
    return result;
}

static inline uint32_t mdy_highs(uint32_t first, uint32_t second)
{
    uint32_t result;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(result) : "r"(second), "r"(first));
    return result;
}

static inline int32_t mdy_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_smlabt(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_smlatb(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlatb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlatt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_smmla(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smmla %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_smmlar(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

static inline int32_t mdy_ssat8(int32_t x)
{
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(x) : "cc");
    return result;
}

static inline uint32_t mdy_between(uint32_t bytes, uint32_t first, uint32_t last)
{
    uint32_t above;
    uint32_t below;
    __asm__("ssub8 %0, %2, %3\n"
            "mrs   %0, apsr\n"
            "ssub8 %1, %4, %2\n"
            "mrs   %1, apsr"
            : "=&r"(above), "=&r"(below)
            : "r"(bytes), "r"(first), "r"(last)
            : "cc");
    return (above & below) >> 16 & 15u; /* the flags GE */
}

#else

/** Bytes 0 and 2 as signed halfwords, added to those of `halves`; each sum wraps. */
static inline uint32_t mdy_add_even(uint32_t halves, uint32_t bytes)
{
    const int32_t low = (int32_t)(halves & 0xFFFFu) + (int8_t)(bytes & 0xFFu);
    const int32_t high = (int32_t)(halves >> 16) + (int8_t)(bytes >> 16 & 0xFFu);
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

/** Bytes 1 and 3 likewise. */
static inline uint32_t mdy_add_odd(uint32_t halves, uint32_t bytes)
{
    return mdy_add_even(halves, bytes >> 8);
}

/** Bytes 0 and 2 as signed halfwords. */
static inline uint32_t mdy_even(uint32_t bytes)
{
    return mdy_add_even(0, bytes);
}

/** Bytes 1 and 3 as signed halfwords. */
static inline uint32_t mdy_odd(uint32_t bytes)
{
    return mdy_add_odd(0, bytes);
}

/** The low halfwords of both, the first one's below. */
static inline uint32_t mdy_lows(uint32_t first, uint32_t second)
{
    return (first & 0xFFFFu) | second << 16;
}

/** The high halfwords of both, the first one's below. */
static inline uint32_t mdy_highs(uint32_t first, uint32_t second)
{
    return first >> 16 | (second & 0xFFFF0000u);
}

/** sum + a.low * b.low + a.high * b.high, signed halfwords; the sum wraps. */
static inline int32_t mdy_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    const int32_t low = (int16_t)(a & 0xFFFFu) * (int16_t)(b & 0xFFFFu);
    const int32_t high = (int16_t)(a >> 16) * (int16_t)(b >> 16);
    return (int32_t)((uint32_t)sum + (uint32_t)low + (uint32_t)high);
}

/** sum + a.low * b.low (bb), a.low * b.high (bt), and so on, signed halfwords; the sum wraps. */
static inline int32_t mdy_smlabb(uint32_t a, uint32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)((int16_t)(a & 0xFFFFu) * (int16_t)(b & 0xFFFFu)));
}

static inline int32_t mdy_smlabt(uint32_t a, uint32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)((int16_t)(a & 0xFFFFu) * (int16_t)(b >> 16)));
}

static inline int32_t mdy_smlatb(uint32_t a, uint32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)((int16_t)(a >> 16) * (int16_t)(b & 0xFFFFu)));
}

static inline int32_t mdy_smlatt(uint32_t a, uint32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)((int16_t)(a >> 16) * (int16_t)(b >> 16)));
}

/** sum + the high word of a * b, rounded down; the sum wraps. */
static inline int32_t mdy_smmla(int32_t a, int32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)(((int64_t)a * b) >> 32));
}

/** sum + the high word of a * b, rounded to the nearest, halves up; the sum wraps. */
static inline int32_t mdy_smmlar(int32_t a, int32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32));
}

/** Bit i: whether byte i of `bytes` is not below that of `first` nor above that of `last`, all signed. */
static inline uint32_t mdy_between(uint32_t bytes, uint32_t first, uint32_t last)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 4; i++) {
        const int8_t value = (int8_t)(bytes >> (8 * i) & 0xFFu);
        bits |= (uint32_t)(value >= (int8_t)(first >> (8 * i) & 0xFFu) && value <= (int8_t)(last >> (8 * i) & 0xFFu))
                << i;
    }
    return bits;
}

/** Limits to int8. */
static inline int32_t mdy_ssat8(int32_t x)
{
    return x < -128 ? -128 : x > 127 ? 127 : x;
}

#endif

/**
 * mdy_requantize of half of `twice`, for a shift of -n with 1 <= n <= 22. offset: half of 2^n, and what is added to the
 * result times 2^n. The first rounding is SMMLAR's, halves up; the second takes one from negative values, whose halves it
 * rounds away from zero.
 */
static inline int32_t mdy_requantize_half(int32_t twice, int32_t mult, int32_t offset, uint32_t n)
{
#if MDY_ROUND_ONCE
    return mdy_smmla(twice, mult, offset) >> n;
#else
    return (mdy_smmlar(twice, mult, offset) + (twice >> 31)) >> n;
#endif
}

#ifdef __cplusplus
}
#endif

#endif
