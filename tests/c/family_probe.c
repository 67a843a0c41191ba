/* SPDX-License-Identifier: Apache-2.0 */
/* A weighted layer by the table of the family that this file is linked with: forward, and the gradient of its input. */
#include <string.h>

#include "mdy/ops/conv2d.h"
#include "mdy/ops/depthwise.h"

/* Sums of every input value, as they are before anything is rounded. */
struct mdy_sink {
    int32_t *sums; /* (H, W, C) */
    mdy_shape_t shape;
    int32_t acc[512];
    int16_t terms[512];
};
struct mdy_update {
    int nothing;
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
    memcpy(sink->sums + ((uint32_t)y * sink->shape.w + (uint32_t)x) * sink->shape.c, sink->acc,
           sink->shape.c * sizeof *sink->acc);
}

void mdy_sink_channel(mdy_sink_t *sink, int32_t y, uint32_t x, uint32_t count, uint32_t c, const int32_t *sums)
{
    for (uint32_t i = 0; i < count; i++) {
        sink->sums[((uint32_t)y * sink->shape.w + x + i) * sink->shape.c + c] = sums[i];
    }
}

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

/* geometry: in, out (h, w, c), kernel, stride, dilation, pad, groups' channels in and out, zero points of x, y and w,
 * range; rows of x and y that memory holds; whether it is narrow. */
static mdy_conv_t layer(const int32_t g[24])
{
    mdy_conv_t p;
    memset(&p, 0, sizeof p);
    p.in = (mdy_shape_t){(uint16_t)g[0], (uint16_t)g[1], (uint16_t)g[2]};
    p.out = (mdy_shape_t){(uint16_t)g[3], (uint16_t)g[4], (uint16_t)g[5]};
    p.kernel_h = (uint8_t)g[6];
    p.kernel_w = (uint8_t)g[7];
    p.stride_h = (uint8_t)g[8];
    p.stride_w = (uint8_t)g[9];
    p.dilation_h = (uint8_t)g[10];
    p.dilation_w = (uint8_t)g[11];
    p.pad_top = (uint8_t)g[12];
    p.pad_left = (uint8_t)g[13];
    p.group_in = (uint16_t)g[14];
    p.group_out = (uint16_t)g[15];
    p.x_zero = (int16_t)g[16];
    p.y_zero = (int16_t)g[17];
    p.w_zero = (int16_t)g[18];
    p.act_min = (int16_t)g[19];
    p.act_max = (int16_t)g[20];
    p.narrow = (uint8_t)g[23];
    return p;
}

/* tile: rows and columns, from and to. room: of the workspace. */
void family_forward(int depthwise, const int32_t g[24], const int32_t tile[4], const int32_t *bias, const int32_t *mult,
                    const int8_t *shift, const int8_t *w, int8_t *x, int8_t *y, const int32_t *acc_init, uint8_t *work,
                    uint32_t room)
{
    mdy_conv_t p = layer(g);
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
    mdy_conv_t p = layer(g);
    p.grad_mult = grad_mult;
    const mdy_selected_t sel = {records, (uint32_t)selected[1], (uint32_t)selected[2], (uint16_t)selected[0], NULL};
    const mdy_view_t view = {(uint8_t *)dy, (uint32_t)(g[4] * g[5]) * (uint32_t)sizeof(mdy_grad_t), (uint16_t)g[3], 0};
    const mdy_workspace_t workspace = {work, room};
    static mdy_sink_t sink;
    sink.sums = sums;
    sink.shape = p.in;
    for (uint16_t row = 0; row < p.in.h; row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        (depthwise ? &mdy_depthwise : &mdy_conv2d)
            ->backward_input(&p, w, &sel, &view, band, &sink, workspace);
    }
}
