/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Counter-based random numbers: a hash of (seed, purpose, step, stream) and an index, not a sequence,
 * so that kernels may draw in any order. The same code stands in compiler/medyate/rng.py.
 *
 * Test vectors: mdy_rng_key(1, 2, 3, 4) = 0xc4ee5f75; mdy_rng(0xc4ee5f75, 0) = 0xb764179b.
 */
#ifndef MDY_RNG_H
#define MDY_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What the numbers are for; part of the key, so that no two uses share a stream. */
enum {
    MDY_RNG_ROUNDING = 1,
    MDY_RNG_SAMPLER = 2,
    MDY_RNG_FLIP = 3,
    MDY_RNG_HEAD = 4,
    MDY_RNG_ORDER = 5 /* of samples, on the host */,
    MDY_RNG_COLUMNS = 6,
    MDY_RNG_BATCH = 7,
    MDY_RNG_BIASES = 8,
    MDY_RNG_SHIFT = 9
};

/** A bijective mixer of 32 bits (two multiplications, three xor-shifts). */
static inline uint32_t mdy_rng_mix(uint32_t x)
{
    x ^= x >> 16;
    x *= UINT32_C(0x7feb352d);
    x ^= x >> 15;
    x *= UINT32_C(0x846ca68b);
    x ^= x >> 16;
    return x;
}

static inline uint32_t mdy_rng_key(uint32_t seed, uint32_t purpose, uint32_t step, uint32_t stream)
{
    uint32_t key = mdy_rng_mix(seed + UINT32_C(0x9e3779b9));
    key = mdy_rng_mix(key ^ (purpose * UINT32_C(0x85ebca6b)));
    key = mdy_rng_mix(key ^ step);
    return mdy_rng_mix(key ^ (stream * UINT32_C(0xc2b2ae35)));
}

/** The index-th number of a key. */
static inline uint32_t mdy_rng(uint32_t key, uint32_t index)
{
    return mdy_rng_mix(key + index * UINT32_C(0x9e3779b9));
}

#ifdef __cplusplus
}
#endif

#endif
