/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution for the host simulator: loops over channels, which the compiler turns into AVX2 instructions on x86
 * processors that have them. Any other machine has the portable kernel.
 */
#include "mdy/ops/depthwise.h"

#if defined(__x86_64__) && defined(__GNUC__)

#define CHANNELS 64 /* at once */

/* Adds one tap's products to the sums of some channels. */
__attribute__((target("avx2"))) static void add_tap(int32_t *restrict acc, const int8_t *restrict x,
                                                    const int8_t *restrict w, int32_t x_zero, int32_t count)
{
    for (int32_t c = 0; c < count; c++) {
        acc[c] += (x[c] - x_zero) * w[c];
    }
}

/* The outputs of some channels; their sums are below 2^30, and all are requantised by mult and a right shift. */
__attribute__((target("avx2"))) static void requantize(const mdy_conv_t *p, const int32_t *restrict acc, int32_t first,
                                                       int8_t *restrict y, int32_t count)
{
    const int32_t *restrict mult = p->mult + first;
    const int8_t *restrict shift = p->shift + first;
    const int32_t zero = p->y_zero;
    const int32_t low = p->act_min;
    const int32_t high = p->act_max;
    for (int32_t c = 0; c < count; c++) {
        const int32_t n = -shift[c];
#if MDY_ROUND_ONCE
        const int64_t half = INT64_C(1) << (30 + n);
        const int32_t value = (int32_t)(((int64_t)acc[c] * mult[c] + half) >> (31 + n)) + zero;
#else
        const int32_t product = (int32_t)(((int64_t)acc[c] * mult[c] + (INT64_C(1) << 30)) >> 31);
        const int32_t half = n > 0 ? (1 << n) >> 1 : 0;
        const int32_t away = n > 0 ? product >> 31 : 0;
        const int32_t value = ((product + half + away) >> n) + zero;
#endif
        y[c] = (int8_t)(value < low ? low : value > high ? high : value);
    }
}

static int are_common(const mdy_conv_t *p, int32_t first, int32_t count)
{
    int common = p->narrow;
    for (int32_t c = first; c < first + count; c++) {
        common &= p->mult[c] != 0 && p->shift[c] <= 0 && p->shift[c] >= -24;
    }
    return common;
}

/* Some channels of an output pixel. acc: their sums so far. */
static void pixel_channels(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, int32_t oy, int32_t ox,
                           int32_t first, int32_t count, int32_t *acc)
{
    const int32_t iy0 = oy * p->stride_h - p->pad_top;
    const int32_t ix0 = ox * p->stride_w - p->pad_left;
    int32_t ky0;
    int32_t ky1;
    int32_t kx0;
    int32_t kx1;
    mdy_taps(iy0, p->dilation_h, p->kernel_h, p->in.h, &ky0, &ky1);
    mdy_taps(ix0, p->dilation_w, p->kernel_w, p->in.w, &kx0, &kx1);
    for (int32_t ky = ky0; ky < ky1; ky++) {
        const int8_t *row = mdy_row(x, iy0 + ky * p->dilation_h) + first;
        for (int32_t kx = kx0; kx < kx1; kx++) {
            add_tap(acc, row + (ix0 + kx * p->dilation_w) * p->in.c, w + (ky * p->kernel_w + kx) * p->in.c + first,
                    p->x_zero, count);
        }
    }
}

static void host_depthwise_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                                   mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    if (!__builtin_cpu_supports("avx2") || p->w_zero != 0) {
        mdy_depthwise_forward(p, w, x, y, tile, acc_init, workspace);
        return;
    }
    const int32_t channels = p->in.c;
    for (int32_t first = 0; first < channels; first += CHANNELS) {
        const int32_t count = channels - first < CHANNELS ? channels - first : CHANNELS;
        const int common = are_common(p, first, count);
        const int32_t *start = acc_init == NULL ? NULL : acc_init + first;
        for (int32_t oy = tile.rows.begin; oy < tile.rows.end; oy++) {
            for (int32_t ox = tile.columns.begin; ox < tile.columns.end; ox++) {
                int32_t acc[CHANNELS];
                for (int32_t c = 0; c < count; c++) {
                    acc[c] = start != NULL ? start[c] : p->bias[first + c];
                }
                start += start != NULL ? channels : 0;
                pixel_channels(p, w, x, oy, ox, first, count, acc);
                int8_t *out = mdy_row(y, oy) + ox * channels + first;
                if (common) {
                    requantize(p, acc, first, out, count);
                    continue;
                }
                for (int32_t c = 0; c < count; c++) {
                    out[c] = mdy_conv_output(p, (uint32_t)(first + c), acc[c]);
                }
            }
        }
    }
}
#else
#define host_depthwise_forward mdy_depthwise_forward
#endif

const mdy_weighted_op_t mdy_depthwise = {
    .forward = host_depthwise_forward,
    .correct = mdy_depthwise_correct,
    .backward_input = mdy_depthwise_backward_input,
    .backward_weight = mdy_depthwise_backward_weight,
    .weight_offset = mdy_depthwise_weight_offset,
};
