/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Instructions of the DSP extension that kernels of its family use, each as one function: the instruction itself where
 * the core has it, else what it computes, so that the family can be tested on any machine.
 *
 * Source   Armv7-M Architecture Reference Manual, A7.7: ROR, SMLAD, SXTAB16, SXTB16
 */
#ifndef MDY_SIMD_H
#define MDY_SIMD_H

#include <stdint.h>
#include <string.h>

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

/** The bytes, turned by one: the second is the lowest. */
static inline uint32_t mdy_ror8(uint32_t word)
{
    return word >> 8 | word << 24;
}

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)

static inline uint32_t mdy_sxtb16(uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(bytes));
    return result;
}

static inline uint32_t mdy_sxtab16(uint32_t halves, uint32_t bytes)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(halves), "r"(bytes));
    return result;
}

static inline int32_t mdy_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

#else

/** Bytes 0 and 2 as signed halfwords, added to those of `halves`. */
static inline uint32_t mdy_sxtab16(uint32_t halves, uint32_t bytes)
{
    const int32_t low = (int32_t)(halves & 0xFFFFu) + (int8_t)(bytes & 0xFFu);
    const int32_t high = (int32_t)(halves >> 16) + (int8_t)(bytes >> 16 & 0xFFu);
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

/** Bytes 0 and 2 as signed halfwords. */
static inline uint32_t mdy_sxtb16(uint32_t bytes)
{
    return mdy_sxtab16(0, bytes);
}

/** sum + a.low * b.low + a.high * b.high, signed halfwords; the sum wraps. */
static inline int32_t mdy_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    const int32_t low = (int16_t)(a & 0xFFFFu) * (int16_t)(b & 0xFFFFu);
    const int32_t high = (int16_t)(a >> 16) * (int16_t)(b >> 16);
    return (int32_t)((uint32_t)sum + (uint32_t)low + (uint32_t)high);
}

#endif

#ifdef __cplusplus
}
#endif

#endif
