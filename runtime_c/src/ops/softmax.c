/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/softmax.h"

#include "mdy/fixed.h"
#include "mdy/gradient.h"
#include "mdy/view.h"

#define SUM_BITS 12 /* integer bits of the sum */

/* 1 / (1 + a), a and the result of 31 fractional bits, a in [0, 1): three steps of Newton's method. */
static int32_t inverse(int32_t a)
{
    const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) >> 1); /* (1 + a) / 2 */
    int32_t x = 1515870810 + mdy_high_mul(half, -1010580540);          /* 48/17 - 32/17 half, 29 fractional bits */
    for (int i = 0; i < 3; i++) {
        const int32_t rest = (1 << 29) - mdy_high_mul(half, x);
        x += mdy_clamp32((int64_t)mdy_high_mul(x, rest) * 4);
    }
    return mdy_clamp32((int64_t)x * 2);
}

static int leading_zeros(uint32_t x)
{
    int zeros = 0;
    while (x < UINT32_C(1) << 31) {
        x <<= 1;
        zeros++;
    }
    return zeros;
}

void mdy_softmax_forward(const mdy_softmax_t *p, const int8_t *x, int8_t *y, uint32_t n)
{
    int32_t max = x[0];
    for (uint32_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (uint32_t)mdy_divide_pot(p->table[max - x[i]], SUM_BITS);
    }
    const int zeros = leading_zeros(sum); /* the maximum alone adds 2^19 */
    const int32_t scale = inverse((int32_t)((sum << zeros) - (UINT32_C(1) << 31)));
    const int shift = SUM_BITS - zeros + 31 - 8;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t share = mdy_high_mul(scale, p->table[max - x[i]]);
        /* Beyond 31 bits nothing is left: each of that many classes has less than half a step. */
        y[i] = mdy_clamp8((shift > 31 ? 0 : mdy_divide_pot(share, shift)) - 128, -128, 127);
    }
}

void mdy_softmax_gather(const mdy_grad_t *dy, const int8_t *y, uint32_t n, int32_t *acc)
{
    int32_t dot = 0; /* the shares add up to 256, give or take their roundings */
    for (uint32_t i = 0; i < n; i++) {
        dot += (y[i] + 128) * dy[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        const int64_t exact = (int64_t)(y[i] + 128) * ((int64_t)dy[i] * 256 - dot);
        acc[i] += (int32_t)mdy_round_shift(exact, MDY_SOFTMAX_SHIFT);
    }
}

void mdy_run_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        for (uint32_t i = 0; i < x_view.row_bytes; i += x->shape.c) {
            mdy_softmax_forward(p, mdy_row(&x_view, walk.row) + i, mdy_row(&y_view, walk.row) + i, x->shape.c);
        }
    }
}

void mdy_back_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *y,
                      const mdy_gradient_t *dx, const mdy_joins_t *joins)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t y_view = mdy_view(m, y);
    const uint32_t channels = dy->shape.c;
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] + MDY_SOFTMAX_SHIFT, 0);
    for (mdy_rows_t walk = mdy_rows(m, dx->shape.h, MDY_ALL); mdy_next_row(&walk);) {
        for (uint16_t ix = 0; ix < dx->shape.w; ix++) {
            const uint32_t first = ix * channels;
            mdy_softmax_gather(mdy_grad_row(&dy_view, walk.row) + first, mdy_row(&y_view, walk.row) + first, channels,
                               mdy_sink_begin(&sink));
            mdy_sink_end(&sink, walk.row, ix);
        }
    }
    mdy_sink_close(&sink);
}
