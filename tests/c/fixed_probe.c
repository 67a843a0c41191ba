/* SPDX-License-Identifier: Apache-2.0 */
/* fixed.h and rng.h over arrays: what the tests call through ctypes. */
#include "mdy/fixed.h"
#include "mdy/rng.h"

void probe_requantize(const int32_t *acc, const int32_t *mult, const int32_t *shift, int32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_requantize(acc[i], mult[i], shift[i]);
    }
}

void probe_round_shift(const int64_t *x, const int32_t *shift, int64_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_round_shift(x[i], shift[i]);
    }
}

void probe_scale2(const int32_t *x, const int32_t *exponent, int32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_scale2(x[i], exponent[i]);
    }
}

void probe_stochastic_shift(const int64_t *x, const int32_t *shift, const uint32_t *random, int32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_stochastic_shift(x[i], shift[i], random[i]);
    }
}

void probe_log2_16(const uint32_t *x, int32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_log2_16(x[i]);
    }
}

void probe_isqrt(const uint64_t *x, uint32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_isqrt(x[i]);
    }
}

void probe_exp2_neg(const uint32_t *x, uint32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_exp2_neg(x[i]);
    }
}

void probe_ln_q30(const uint64_t *x, int32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_ln_q30(x[i]);
    }
}

void probe_cos2(const uint32_t *x, uint32_t *y, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = mdy_cos2(x[i]);
    }
}

/* Five fields a row: seed, purpose, step, stream, index. */
void probe_rng_key(const uint32_t *fields, uint32_t *key, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const uint32_t *f = fields + 5 * i;
        key[i] = mdy_rng_key(f[0], f[1], f[2], f[3]);
    }
}

void probe_rng(const uint32_t *fields, uint32_t *number, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        const uint32_t *f = fields + 5 * i;
        number[i] = mdy_rng(mdy_rng_key(f[0], f[1], f[2], f[3]), f[4]);
    }
}
