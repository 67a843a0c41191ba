/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution: portable reference of all directions. */
#include "mdy/ops/depthwise.h"

#include "mdy/fixed.h"

void mdy_depthwise_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                           mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    (void)workspace;
    const int32_t channels = p->in.c;
    const int32_t x_zero = p->x_zero;
    const int32_t w_zero = p->w_zero;
    const int8_t *x_rows[MDY_KERNEL_MAX];

    for (int32_t oy = tile.rows.begin; oy < tile.rows.end; oy++) {
        int8_t *out = mdy_row(y, oy) + tile.columns.begin * channels;
        const int32_t iy0 = oy * p->stride_h - p->pad_top;
        int32_t ky0;
        int32_t ky1;
        mdy_taps(iy0, p->dilation_h, p->kernel_h, p->in.h, &ky0, &ky1);
        for (int32_t ky = ky0; ky < ky1; ky++) {
            x_rows[ky] = mdy_row(x, iy0 + ky * p->dilation_h);
        }
        for (int32_t ox = tile.columns.begin; ox < tile.columns.end; ox++) {
            const int32_t ix0 = ox * p->stride_w - p->pad_left;
            int32_t kx0;
            int32_t kx1;
            mdy_taps(ix0, p->dilation_w, p->kernel_w, p->in.w, &kx0, &kx1);
            for (int32_t c = 0; c < channels; c++) {
                int32_t acc = acc_init != NULL ? *acc_init++ : p->bias[c];
                for (int32_t ky = ky0; ky < ky1; ky++) {
                    const int8_t *value = x_rows[ky] + (ix0 + kx0 * p->dilation_w) * channels + c;
                    const int8_t *weight = w + (ky * p->kernel_w + kx0) * channels + c;
                    for (int32_t kx = kx0; kx < kx1; kx++) {
                        acc += (*weight - w_zero) * (*value - x_zero);
                        value += p->dilation_w * channels;
                        weight += channels;
                    }
                }
                *out++ = mdy_conv_output(p, (uint32_t)c, acc);
            }
        }
    }
}

static void correct_tap(const mdy_conv_t *p, const int8_t *delta, uint32_t tap, uint32_t c, int32_t value, int32_t *acc)
{
    (void)p;
    acc[c] += delta[tap] * value;
}

void mdy_depthwise_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                           int32_t *acc_init)
{
    mdy_conv_correct(p, correct_tap, sel, x, tile, acc_init);
}

static void spread_tap(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const int16_t *g_acc,
                       uint32_t tap, int32_t *acc)
{
    const int8_t *w_tap = w + tap * p->in.c;
    const int32_t w_zero = p->w_zero;
    for (uint32_t c = 0; c < p->in.c; c++) {
        acc[c] += g_acc[c] * (w_tap[c] - w_zero);
    }
    for (uint32_t slot = 0; slot < sel->count; slot++) {
        uint8_t *record = mdy_record(sel, slot);
        const uint32_t c = mdy_record_channel(record);
        acc[c] += g_acc[c] * mdy_record_delta(record)[tap];
    }
}

void mdy_depthwise_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const mdy_view_t *dy,
                                  mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace)
{
    (void)workspace;
    const mdy_spread_t spread = {spread_tap, w, sel};
    mdy_conv_spread(p, &spread, dy, rows, sink);
}

typedef struct {
    int32_t y, x; /* input coordinate minus stride times output coordinate */
} tap_offset_t;

/* The sum over the output pixels of one channel's gradient times the input that its tap looks at. */
static mdy_wacc_t correlate(const mdy_conv_t *p, const mdy_view_t *dy, mdy_band_t rows, const int8_t *map,
                            uint32_t channel, tap_offset_t offset)
{
    mdy_wacc_t sum = 0;
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        const int32_t iy = oy * p->stride_h + offset.y;
        if (iy < 0 || iy >= p->in.h) {
            continue;
        }
        const mdy_grad_t *g = mdy_grad_row(dy, oy) + channel;
        const int8_t *map_row = map + iy * p->in.w;
        for (int32_t ox = 0; ox < p->out.w; ox++) {
            const int32_t ix = ox * p->stride_w + offset.x;
            if (ix >= 0 && ix < p->in.w) {
                sum += g[ox * p->out.c] * (map_row[ix] - p->x_zero);
            }
        }
    }
    return sum;
}

void mdy_depthwise_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                   const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace)
{
    (void)workspace;
    for (uint32_t slot = 0; slot < sel->count; slot++) {
        uint8_t *record = mdy_record(sel, slot);
        const int8_t *map = mdy_record_map(sel, record);
        for (int32_t tap = taps.begin; tap < taps.end; tap++) {
            const tap_offset_t offset = {tap / p->kernel_w * p->dilation_h - p->pad_top,
                                         tap % p->kernel_w * p->dilation_w - p->pad_left};
            *sums++ += correlate(p, dy, rows, map, mdy_record_channel(record), offset);
        }
    }
}

uint32_t mdy_depthwise_weight_offset(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c)
{
    (void)o;
    return tap * p->in.c + c;
}
