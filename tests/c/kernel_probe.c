/* SPDX-License-Identifier: Apache-2.0 */
/* The backward kernels alone: accumulators and sums go to the test untouched, before any rounding. */
#include <string.h>

#include "mdy/ops/conv2d.h"
#include "mdy/ops/depthwise.h"

struct mdy_sink {
    int32_t acc[512];
    int16_t terms[512];
    int32_t *out;
    uint32_t channels, width;
};

int32_t *mdy_sink_begin(mdy_sink_t *sink)
{
    memset(sink->acc, 0, sizeof sink->acc);
    return sink->acc;
}

int16_t *mdy_sink_terms(mdy_sink_t *sink)
{
    return sink->terms;
}

void mdy_sink_end(mdy_sink_t *sink, int32_t y, int32_t x)
{
    int32_t *pixel = sink->out + ((uint32_t)y * sink->width + (uint32_t)x) * sink->channels;
    memcpy(pixel, sink->acc, sink->channels * sizeof *pixel);
}

/* geometry: in h w c, out h w c, kernel h w, stride h w, dilation h w, pad top left, group in out, zeros */
typedef struct {
    int32_t in[3], out[3], kernel[2], stride[2], dilation[2], pad[2], group[2], x_zero, w_zero;
} probe_geometry_t;

static mdy_conv_t layer(const probe_geometry_t *g, const int16_t *grad_mult)
{
    mdy_conv_t p;
    memset(&p, 0, sizeof p);
    p.in = (mdy_shape_t){(uint16_t)g->in[0], (uint16_t)g->in[1], (uint16_t)g->in[2]};
    p.out = (mdy_shape_t){(uint16_t)g->out[0], (uint16_t)g->out[1], (uint16_t)g->out[2]};
    p.kernel_h = (uint8_t)g->kernel[0];
    p.kernel_w = (uint8_t)g->kernel[1];
    p.stride_h = (uint8_t)g->stride[0];
    p.stride_w = (uint8_t)g->stride[1];
    p.dilation_h = (uint8_t)g->dilation[0];
    p.dilation_w = (uint8_t)g->dilation[1];
    p.pad_top = (uint8_t)g->pad[0];
    p.pad_left = (uint8_t)g->pad[1];
    p.group_in = (uint16_t)g->group[0];
    p.group_out = (uint16_t)g->group[1];
    p.x_zero = (int16_t)g->x_zero;
    p.w_zero = (int16_t)g->w_zero;
    p.grad_mult = grad_mult;
    return p;
}

/* Input and weight gradients of one layer; every channel of `records` is selected. dw: (channels, taps, outputs). */
void probe_backward(int depthwise, const probe_geometry_t *g, const int16_t *grad_mult, const int8_t *w,
                    uint8_t *records, uint32_t record_bytes, uint32_t delta_bytes, int8_t *dy, int32_t *dx,
                    int64_t *dw)
{
    const mdy_weighted_op_t *op = depthwise ? &mdy_depthwise : &mdy_conv2d;
    const mdy_conv_t p = layer(g, grad_mult);
    const mdy_selected_t selected = {records, record_bytes, delta_bytes, p.in.c, p.bias};
    const mdy_view_t view = {(uint8_t *)dy, (uint32_t)p.out.w * p.out.c, p.out.h, 0};
    static mdy_sink_t sink;
    static mdy_wacc_t sums[512];
    const uint16_t taps = (uint16_t)(p.kernel_h * p.kernel_w);
    const mdy_workspace_t none = {NULL, 0};
    sink.out = dx;
    sink.channels = p.in.c;
    sink.width = p.in.w;
    for (uint16_t row = 0; row < p.in.h; row++) { /* bands of one row, as the runtime calls it */
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        op->backward_input(&p, w, &selected, &view, band, &sink, none);
    }
    const mdy_band_t all = {0, p.out.h};
    for (uint16_t tap = 0; tap < taps; tap++) { /* one at a time, as the runtime does where there is room for no more */
        for (uint32_t slot = 0; slot < p.in.c; slot++) {
            mdy_selected_t one = selected;
            const mdy_band_t band = {tap, (uint16_t)(tap + 1)};
            one.records = mdy_record(&selected, slot);
            one.count = 1;
            memset(sums, 0, sizeof sums);
            op->backward_weight(&p, &one, band, &view, all, sums, none);
            for (uint32_t o = 0; o < p.group_out; o++) {
                dw[(slot * taps + tap) * p.group_out + o] = sums[o];
            }
        }
    }
}
