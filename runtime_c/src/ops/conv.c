/* SPDX-License-Identifier: Apache-2.0 */
/* The walks over pixels and window taps that all windowed operations share. */
#include "mdy/ops/conv.h"

#include <string.h>

/* The output coordinate whose tap `k` looks at input coordinate i, or -1. */
static int32_t covering(int32_t i, int32_t pad, int32_t k, int32_t stride, int32_t out)
{
    const int32_t n = i + pad - k;
    return n < 0 || n % stride != 0 || n / stride >= out ? -1 : n / stride;
}

static void scale_pixel(const mdy_conv_t *p, const mdy_grad_t *dy, int16_t *g_acc)
{
    for (uint32_t o = 0; o < p->out.c; o++) {
        g_acc[o] = mdy_grad_acc(p, dy[o], o);
    }
}

void mdy_conv_spread(const mdy_conv_t *p, const mdy_spread_t *spread, const mdy_view_t *dy, mdy_band_t rows,
                     mdy_sink_t *sink)
{
    for (int32_t iy = rows.begin; iy < rows.end; iy++) {
        for (int32_t ix = 0; ix < p->in.w; ix++) {
            int32_t *acc = mdy_sink_begin(sink);
            int16_t *g_acc = mdy_sink_terms(sink);
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                const int32_t oy = covering(iy, p->pad_top, ky * p->dilation_h, p->stride_h, p->out.h);
                if (oy < 0) {
                    continue;
                }
                const mdy_grad_t *dy_row = mdy_grad_row(dy, oy);
                for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                    const int32_t ox = covering(ix, p->pad_left, kx * p->dilation_w, p->stride_w, p->out.w);
                    if (ox >= 0) {
                        scale_pixel(p, dy_row + ox * p->out.c, g_acc);
                        spread->tap(p, spread->w, spread->selected, g_acc, (uint32_t)(ky * p->kernel_w + kx), acc);
                    }
                }
            }
            mdy_sink_end(sink, iy, ix);
        }
    }
}

/* One pixel's bias and what the deltas add to it; its window begins at (iy0, ix0) of the input. */
static void correct_pixel(const mdy_conv_t *p, mdy_correct_tap_t add_tap, const mdy_selected_t *sel,
                          const mdy_view_t *x, int32_t iy0, int32_t ix0, int32_t *acc)
{
    int32_t ky0;
    int32_t ky1;
    int32_t kx0;
    int32_t kx1;
    mdy_taps(iy0, p->dilation_h, p->kernel_h, p->in.h, &ky0, &ky1);
    mdy_taps(ix0, p->dilation_w, p->kernel_w, p->in.w, &kx0, &kx1);
    memcpy(acc, sel->bias, p->out.c * sizeof *acc);
    for (uint32_t slot = 0; slot < sel->count; slot++) {
        uint8_t *record = mdy_record(sel, slot);
        const uint32_t c = mdy_record_channel(record);
        for (int32_t ky = ky0; ky < ky1; ky++) {
            const int8_t *x_row = mdy_row(x, iy0 + ky * p->dilation_h);
            for (int32_t kx = kx0; kx < kx1; kx++) {
                const int32_t value = x_row[(ix0 + kx * p->dilation_w) * p->in.c + (int32_t)c] - p->x_zero;
                if (value != 0) {
                    add_tap(p, mdy_record_delta(record), (uint32_t)(ky * p->kernel_w + kx), c, value, acc);
                }
            }
        }
    }
}

void mdy_conv_correct(const mdy_conv_t *p, mdy_correct_tap_t add_tap, const mdy_selected_t *sel, const mdy_view_t *x,
                      mdy_tile_t tile, int32_t *acc_init)
{
    for (int32_t oy = tile.rows.begin; oy < tile.rows.end; oy++) {
        for (int32_t ox = tile.columns.begin; ox < tile.columns.end; ox++) {
            correct_pixel(p, add_tap, sel, x, oy * p->stride_h - p->pad_top, ox * p->stride_w - p->pad_left, acc_init);
            acc_init += p->out.c;
        }
    }
}
