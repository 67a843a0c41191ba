/* SPDX-License-Identifier: Apache-2.0 */
/* The backward kernels alone: accumulators and sums go to the test untouched, before any rounding. */
#include "layer.h"

struct mdy_update {
    mdy_wacc_t sums[512];
    int64_t *out; /* (slots, taps, outputs) */
    uint32_t taps, outputs;
};

mdy_wacc_t *mdy_update_begin(mdy_update_t *update, uint32_t slot, uint32_t tap)
{
    (void)slot;
    (void)tap;
    memset(update->sums, 0, sizeof update->sums);
    return update->sums;
}

void mdy_update_end(mdy_update_t *update, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    for (uint32_t o = 0; o < update->outputs; o++) {
        update->out[(slot * update->taps + tap) * update->outputs + o] = sums[o];
    }
}

/* Input and weight gradients of one layer; every channel of `records` is selected. */
void probe_backward(int depthwise, const int32_t g[24], const int16_t *grad_mult, const int8_t *w, uint8_t *records,
                    uint32_t record_bytes, uint32_t delta_bytes, int8_t *dy, int32_t *dx, int64_t *dw)
{
    const mdy_weighted_op_t *op = depthwise ? &mdy_depthwise : &mdy_conv2d;
    mdy_conv_t p = layer_of(g);
    p.grad_mult = grad_mult;
    const mdy_selected_t selected = {records, record_bytes, delta_bytes, p.in.c, p.bias};
    const mdy_view_t view = {(uint8_t *)dy, (uint32_t)p.out.w * p.out.c, p.out.h, 0};
    static mdy_sink_t sink;
    static mdy_update_t update;
    sink.sums = dx;
    sink.shape = p.in;
    update.out = dw;
    update.taps = (uint32_t)p.kernel_h * p.kernel_w;
    update.outputs = p.group_out;
    for (uint16_t row = 0; row < p.in.h; row++) { /* bands of one row, as the runtime calls it */
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        const mdy_workspace_t none = {NULL, 0};
        op->backward_input(&p, w, &selected, &view, band, &sink, none);
    }
    const mdy_band_t all = {0, p.out.h};
    op->backward_weight(&p, &selected, &view, all, &update);
}
