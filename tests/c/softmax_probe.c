/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic behind softmax over arrays of binary32 patterns; the source itself, as its functions are static. */
#include "../../runtime_c/src/ops/softmax.c"

static void store(real_t real, uint32_t *m, int32_t *e)
{
    *m = real.m;
    *e = real.e;
}

void probe_add(const uint32_t *a, const uint32_t *b, uint32_t *m, int32_t *e, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        store(add(unpack(a[i]), unpack(b[i])), m + i, e + i);
    }
}

void probe_multiply(const uint32_t *a, const uint32_t *b, uint32_t *m, int32_t *e, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        store(multiply(unpack(a[i]), unpack(b[i])), m + i, e + i);
    }
}

void probe_reciprocal(const uint32_t *a, uint32_t *m, int32_t *e, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        store(reciprocal(unpack(a[i])), m + i, e + i);
    }
}

void probe_softmax(const uint32_t *table, int32_t y_zero, const int8_t *x, int8_t *y, uint32_t n)
{
    const mdy_softmax_t p = {.table = table, .y_zero = (int16_t)y_zero};
    mdy_softmax_forward(&p, x, y, n);
}
