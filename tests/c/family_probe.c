/* SPDX-License-Identifier: Apache-2.0 */
/* A weighted layer by the table of the family that this file is linked with: forward, and the gradient of its input. */
#include "layer.h"

struct mdy_update {
    int nothing;
};

/* Weight gradients are not called. */
mdy_wacc_t *mdy_update_begin(mdy_update_t *update, uint32_t slot, uint32_t tap)
{
    (void)update;
    (void)slot;
    (void)tap;
    return NULL;
}

void mdy_update_end(mdy_update_t *update, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    (void)update;
    (void)slot;
    (void)tap;
    (void)sums;
}

/* tile: rows and columns, from and to. room: of the workspace. */
void family_forward(int depthwise, const int32_t g[24], const int32_t tile[4], const int32_t *bias, const int32_t *mult,
                    const int8_t *shift, const int8_t *w, int8_t *x, int8_t *y, const int32_t *acc_init, uint8_t *work,
                    uint32_t room)
{
    mdy_conv_t p = layer_of(g);
    p.bias = bias;
    p.mult = mult;
    p.shift = shift;
    const mdy_view_t x_view = {(uint8_t *)x, (uint32_t)(g[1] * g[2]), (uint16_t)g[21], 0};
    const mdy_view_t y_view = {(uint8_t *)y, (uint32_t)(g[4] * g[5]), (uint16_t)g[22], 0};
    const mdy_tile_t pixels = {{(uint16_t)tile[0], (uint16_t)tile[1]}, {(uint16_t)tile[2], (uint16_t)tile[3]}};
    const mdy_workspace_t workspace = {work, room};
    (depthwise ? &mdy_depthwise : &mdy_conv2d)->forward(&p, w, &x_view, &y_view, pixels, acc_init, workspace);
}

/* selected: number of records, bytes of one, bytes of its delta; sums: (H, W, C), row after row. */
void family_backward(int depthwise, const int32_t g[24], const int16_t *grad_mult, const int8_t *w,
                     const int32_t selected[3], uint8_t *records, int8_t *dy, int32_t *sums, uint8_t *work,
                     uint32_t room)
{
    mdy_conv_t p = layer_of(g);
    p.grad_mult = grad_mult;
    const mdy_selected_t sel = {records, (uint32_t)selected[1], (uint32_t)selected[2], (uint16_t)selected[0], NULL};
    const mdy_view_t view = {(uint8_t *)dy, (uint32_t)(g[4] * g[5]) * (uint32_t)sizeof(mdy_grad_t), (uint16_t)g[3], 0};
    const mdy_workspace_t workspace = {work, room};
    static mdy_sink_t sink;
    sink.sums = sums;
    sink.shape = p.in;
    for (uint16_t row = 0; row < p.in.h; row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        (depthwise ? &mdy_depthwise : &mdy_conv2d)->backward_input(&p, w, &sel, &view, band, &sink, workspace);
    }
}
