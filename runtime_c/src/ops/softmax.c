/* SPDX-License-Identifier: Apache-2.0 */
/* Binary32 arithmetic in integers: a float here would cost a soft-float library and differ between compilers. */
#include "mdy/ops/softmax.h"

#include "mdy/fixed.h"

#define LEAST (-149) /* 2-exponent of the smallest subnormal number */

/* m * 2^e >= 0 that binary32 holds: m <= 2^24, e >= LEAST. Sums here stay far from its infinity. */
typedef struct {
    uint32_t m;
    int32_t e;
} real_t;

static real_t unpack(uint32_t pattern)
{
    const int32_t field = (int32_t)(pattern >> 23);
    const uint32_t fraction = pattern & 0x7fffffu;
    return field == 0 ? (real_t){fraction, LEAST} : (real_t){fraction | 0x800000u, field - 1 + LEAST};
}

/* The nearest binary32 value to m * 2^e, ties to even; m <= 2^62. */
static real_t nearest(uint64_t m, int32_t e)
{
    int32_t drop = m >> 46 != 0 ? 22 : 0; /* bits that do not fit; a shortcut to where products mostly end */
    if (drop < LEAST - e) {
        drop = LEAST - e;
    }
    if (drop > 62) {
        return (real_t){0, LEAST};
    }
    while (m >> drop >= 1u << 24) {
        drop++;
    }
    const uint64_t kept = m >> drop;
    const uint64_t lost = m - (kept << drop);
    const int up = 2 * lost + (kept & 1u) > UINT64_C(1) << drop;
    return (real_t){(uint32_t)kept + (uint32_t)up, e + drop};
}

/* Both in the form that unpack gives: m >= 2^23 unless e is LEAST. So do sums. */
static real_t add(real_t a, real_t b)
{
    if (a.e < b.e) {
        const real_t swap = a;
        a = b;
        b = swap;
    }
    const int32_t apart = a.e - b.e;
    if (apart > 25) {
        return a; /* b is at most a quarter of a's last bit */
    }
    return nearest(((uint64_t)a.m << 25) + ((uint64_t)b.m << (25 - apart)), a.e - 25);
}

static real_t multiply(real_t a, real_t b)
{
    return nearest((uint64_t)a.m * b.m, a.e + b.e);
}

/* 1 / a for a > 0. The quotient has 39 bits or more, so its last one can stand for all that follow it. */
static real_t reciprocal(real_t a)
{
    const uint64_t one = UINT64_C(1) << 62;
    return nearest(one / a.m | (one % a.m != 0), -62 - a.e);
}

void mdy_softmax_forward(const mdy_softmax_t *p, const int8_t *x, int8_t *y, uint32_t n)
{
    int32_t max = x[0];
    for (uint32_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    real_t sum = {0, LEAST};
    for (uint32_t i = 0; i < n; i++) {
        sum = add(sum, unpack(p->table[max - x[i]]));
    }
    /* The maximum adds 1 to the sum, so that division by 256 is exact and no share passes 256. */
    const real_t share = reciprocal((real_t){sum.m, sum.e - 8});
    for (uint32_t i = 0; i < n; i++) {
        const real_t real = multiply(unpack(p->table[max - x[i]]), share);
        y[i] = mdy_clamp8(mdy_scale2((int32_t)real.m, real.e) + p->y_zero, -128, 127);
    }
}
