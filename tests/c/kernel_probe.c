/* SPDX-License-Identifier: Apache-2.0 */
/* The backward kernels alone: accumulators and sums go to the test untouched, before any rounding. */
#include "layer.h"

/* Input and weight gradients of one layer; every channel of `records` is selected. dw: (channels, taps, outputs). */
void probe_backward(int depthwise, const int32_t g[24], const int16_t *grad_mult, const int8_t *w, uint8_t *records,
                    uint32_t record_bytes, uint32_t delta_bytes, int8_t *dy, int32_t *dx, int64_t *dw)
{
    const mdy_weighted_op_t *op = depthwise ? &mdy_depthwise : &mdy_conv2d;
    mdy_conv_t p = layer_of(g);
    p.grad_mult = grad_mult;
    const mdy_selected_t selected = {records, record_bytes, delta_bytes, p.in.c, p.bias};
    const mdy_view_t view = {(uint8_t *)dy, (uint32_t)p.out.w * p.out.c, p.out.h, 0};
    static mdy_sink_t sink;
    static mdy_wacc_t sums[512];
    const uint16_t taps = (uint16_t)(p.kernel_h * p.kernel_w);
    const mdy_workspace_t none = {NULL, 0};
    sink.sums = dx;
    sink.shape = p.in;
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
