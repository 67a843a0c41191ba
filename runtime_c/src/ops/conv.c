/* SPDX-License-Identifier: Apache-2.0 */
/* The walk over input pixels that the input gradients of all windowed operations share. */
#include "mdy/ops/conv.h"

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

void mdy_conv_spread(const mdy_conv_t *p, const mdy_spread_t *spread, const mdy_view_t *dy,
                     mdy_band_t rows, mdy_sink_t *sink)
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
                    const int32_t ox =
                        covering(ix, p->pad_left, kx * p->dilation_w, p->stride_w, p->out.w);
                    if (ox >= 0) {
                        scale_pixel(p, dy_row + ox * p->out.c, g_acc);
                        spread->tap(p, spread->w, spread->selected, g_acc,
                                    (uint32_t)(ky * p->kernel_w + kx), acc);
                    }
                }
            }
            mdy_sink_end(sink, iy, ix);
        }
    }
}
