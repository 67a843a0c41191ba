/* SPDX-License-Identifier: Apache-2.0 */
/* Average pooling for cores with the M-profile vector extension: sums of four channels at a time. */
#include "mdy/fixed.h"
#include "mdy/mve.h"
#include "mdy/ops/pool.h"

/* What a sum of `count` values becomes. */
static int8_t mean(const mdy_pool_t *p, int32_t sum, int32_t count)
{
    if (p->mult != 0) {
        return mdy_output8(mdy_requantize(sum - count * p->x_zero, p->mult, p->shift), p->y_zero, -128, 127);
    }
    return mdy_output8(mdy_mean(sum - count * p->origin, count), p->origin, -128, 127);
}

/* Sums of four channels from `c` on over the pixels of a window. */
static mdy_v4_t window_sums(const mdy_view_t *x, const mdy_window_t *w, uint32_t channels, uint32_t c)
{
    mdy_v4_t sums = mdy_v4_all(0);
#pragma GCC unroll 1
    for (int32_t iy = w->y0; iy < w->y1; iy++) {
        const int8_t *in = mdy_row(x, iy) + (uint32_t)w->x0 * channels + c;
#pragma GCC unroll 1
        for (int32_t ix = w->x0; ix < w->x1; ix++, in += channels) {
            sums = mdy_v4_add(sums, mdy_v4_load8(in));
        }
    }
    return sums;
}

/* Sum of one channel. */
static int32_t window_sum(const mdy_view_t *x, const mdy_window_t *w, uint32_t channels, uint32_t c)
{
    int32_t sum = 0;
    for (int32_t iy = w->y0; iy < w->y1; iy++) {
        const int8_t *in = mdy_row(x, iy) + c;
        for (int32_t ix = w->x0; ix < w->x1; ix++) {
            sum += in[(uint32_t)ix * channels];
        }
    }
    return sum;
}

void mdy_pool_forward(const mdy_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows)
{
    const uint32_t channels = x_shape.c;
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        int8_t *out = mdy_row(y, oy);
        for (int32_t ox = 0; ox < y_shape.w; ox++, out += channels) {
            const mdy_window_t w = mdy_window(&p->extent, x_shape, oy, ox);
            const int32_t count = (w.y1 - w.y0) * (w.x1 - w.x0);
            uint32_t c = 0;
            for (; c + MDY_LANES <= channels; c += MDY_LANES) {
                int32_t sums[MDY_LANES];
                mdy_v4_store(sums, window_sums(x, &w, channels, c));
#pragma GCC unroll 1
                for (uint32_t i = 0; i < MDY_LANES; i++) {
                    out[c + i] = mean(p, sums[i], count);
                }
            }
            for (; c < channels; c++) {
                out[c] = mean(p, window_sum(x, &w, channels, c), count);
            }
        }
    }
}
