/* SPDX-License-Identifier: Apache-2.0 */
/* Dense convolution: portable reference of all directions. */
#include "mdy/ops/conv2d.h"

#include "mdy/fixed.h"

static int32_t dot(const mdy_conv_t *p, const int8_t *w, const int8_t *x, int32_t n)
{
    const int32_t x_zero = p->x_zero;
    int32_t acc = 0;
    for (int32_t i = 0; i < n; i++) {
        acc += w[i] * (x[i] - x_zero);
    }
    if (p->w_zero != 0) {
        int32_t sum = 0;
        for (int32_t i = 0; i < n; i++) {
            sum += x[i] - x_zero;
        }
        acc -= p->w_zero * sum;
    }
    return acc;
}

void mdy_conv2d_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y, mdy_tile_t tile,
                        const int32_t *acc_init, mdy_workspace_t workspace)
{
    (void)workspace;
    const int32_t in_c = p->in.c;
    const int32_t group_in = p->group_in;
    const int32_t w_row = p->kernel_w * group_in;
    const int8_t *x_rows[MDY_KERNEL_MAX];

    for (int32_t oy = tile.rows.begin; oy < tile.rows.end; oy++) {
        int8_t *out = mdy_row(y, oy) + tile.columns.begin * p->out.c;
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
            /* Neighbouring taps of an undilated row are contiguous in x and in w: one long product. */
            const int32_t run = p->dilation_w == 1 && group_in == in_c ? kx1 - kx0 : 1;
            for (int32_t o = 0; o < p->out.c; o++) {
                const int32_t first = group_in == in_c ? 0 : o / p->group_out * group_in;
                int32_t acc = acc_init != NULL ? *acc_init++ : p->bias[o];
                if (p->mult[o] == 0) {
                    *out++ = p->shift[o];
                    continue;
                }
                for (int32_t ky = ky0; ky < ky1; ky++) {
                    const int8_t *w_taps = w + (o * p->kernel_h + ky) * w_row;
                    for (int32_t kx = kx0; kx < kx1; kx += run) {
                        const int8_t *x_taps = x_rows[ky] + (ix0 + kx * p->dilation_w) * in_c + first;
                        acc += dot(p, w_taps + kx * group_in, x_taps, run * group_in);
                    }
                }
                *out++ = mdy_conv_output(p, (uint32_t)o, acc);
            }
        }
    }
}

static void correct_tap(const mdy_conv_t *p, const int8_t *delta, uint32_t tap, uint32_t c, int32_t value, int32_t *acc)
{
    const int8_t *taps = delta + tap * p->group_out;
    acc += mdy_first_output(p, c);
    for (uint32_t o = 0; o < p->group_out; o++) {
        acc[o] += taps[o] * value;
    }
}

void mdy_conv2d_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                        int32_t *acc_init)
{
    mdy_conv_correct(p, correct_tap, sel, x, tile, acc_init);
}

static void spread_tap(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const int16_t *g_acc,
                       uint32_t tap, int32_t *acc)
{
    const uint32_t group_in = p->group_in;
    const uint32_t filter = (uint32_t)p->kernel_h * p->kernel_w * group_in;
    const int32_t w_zero = p->w_zero;
    const int8_t *w_tap = w + tap * group_in;
    for (uint32_t o = 0; o < p->out.c; o++) {
        const int32_t g = g_acc[o];
        if (g != 0) { /* about half are: masked, or too small for the exponent */
            int32_t *inputs = acc + (group_in == p->in.c ? 0 : o / p->group_out * group_in);
            for (uint32_t c = 0; c < group_in; c++) {
                inputs[c] += g * (w_tap[c] - w_zero);
            }
        }
        w_tap += filter;
    }
    for (uint32_t slot = 0; slot < sel->count; slot++) {
        uint8_t *record = mdy_record(sel, slot);
        const uint32_t c = mdy_record_channel(record);
        const int8_t *delta = mdy_record_delta(record) + tap * p->group_out;
        const int16_t *g = g_acc + mdy_first_output(p, c);
        int32_t sum = 0;
        for (uint32_t o = 0; o < p->group_out; o++) {
            sum += g[o] * delta[o];
        }
        acc[c] += sum;
    }
}

void mdy_conv2d_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const mdy_view_t *dy,
                               mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace)
{
    (void)workspace;
    const mdy_spread_t spread = {spread_tap, w, sel};
    mdy_conv_spread(p, &spread, dy, rows, sink);
}

/* Adds what rows of dy contribute to one tap of a channel, whose outputs begin with `first`. */
static void add_tap(const mdy_conv_t *p, const int8_t *map, uint32_t tap, uint32_t first, const mdy_view_t *dy,
                    mdy_band_t rows, mdy_wacc_t *sums)
{
    const uint32_t outputs = p->group_out;
    const int32_t ky = (int32_t)tap / p->kernel_w;
    const int32_t kx = (int32_t)tap % p->kernel_w;
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
        if (iy < 0 || iy >= p->in.h) {
            continue;
        }
        const mdy_grad_t *dy_row = mdy_grad_row(dy, oy);
        for (int32_t ox = 0; ox < p->out.w; ox++) {
            const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
            if (ix < 0 || ix >= p->in.w) {
                continue;
            }
            const int32_t value = map[iy * p->in.w + ix] - p->x_zero;
            if (value == 0) {
                continue;
            }
            const mdy_grad_t *g = dy_row + ox * p->out.c + first;
            for (uint32_t o = 0; o < outputs; o++) {
                sums[o] += g[o] * value;
            }
        }
    }
}

void mdy_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps, const mdy_view_t *dy,
                                mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace)
{
    (void)workspace;
    for (uint32_t slot = 0; slot < sel->count; slot++) {
        uint8_t *record = mdy_record(sel, slot);
        const int8_t *map = mdy_record_map(sel, record);
        const uint32_t first = mdy_first_output(p, mdy_record_channel(record));
        for (uint32_t tap = taps.begin; tap < taps.end; tap++, sums += p->group_out) {
            add_tap(p, map, tap, first, dy, rows, sums);
        }
    }
}

uint32_t mdy_conv2d_weight_offset(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c)
{
    return (o * p->kernel_h * p->kernel_w + tap) * p->group_in + c % p->group_in;
}
