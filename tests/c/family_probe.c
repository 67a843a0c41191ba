/* SPDX-License-Identifier: Apache-2.0 */
/* A weighted layer by the table of the family that this file is linked with, in each direction. */
#include <string.h>

#include "mdy/ops/conv2d.h"
#include "mdy/ops/depthwise.h"

enum { FORWARD = 0, CORRECT = 1, BACK_INPUT = 2, BACK_WEIGHT = 3 };

/* Sums of every input value, as they are before anything is rounded. */
struct mdy_sink {
    int32_t *sums; /* (H, W, C) */
    mdy_shape_t shape;
    int32_t acc[512];
    int16_t terms[512];
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

void mdy_sink_channels(mdy_sink_t *sink, int32_t y, uint32_t x, uint32_t count, uint32_t c, uint32_t channels,
                       const int32_t *sums, uint32_t pitch)
{
    for (uint32_t channel = 0; channel < channels; channel++) {
        for (uint32_t i = 0; i < count; i++) {
            sink->sums[((uint32_t)y * sink->shape.w + x + i) * sink->shape.c + c + channel] = sums[channel * pitch + i];
        }
    }
}

/* What a case consists of; NULL where a direction does not have it. */
enum { GEOMETRY, RANGES, BIAS, MULT, SHIFT, WEIGHT, X, START, GRAD_MULT, SELECTED, RECORDS, DY, PARTS };

/* geometry: in, out (h, w, c), kernel, stride, dilation, pad, groups' channels in and out, zero points of x, y and w,
 * range; rows of x and y that memory holds; whether it is narrow. */
static mdy_conv_t layer(void *const parts[PARTS])
{
    const int32_t *g = (const int32_t *)parts[GEOMETRY];
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
    p.bias = (const int32_t *)parts[BIAS];
    p.mult = (const int32_t *)parts[MULT];
    p.shift = (const int8_t *)parts[SHIFT];
    p.grad_mult = (const int16_t *)parts[GRAD_MULT];
    return p;
}

/*
 * out holds what is added to, or anything. RANGES: of rows and columns (forward, correct), of taps and rows (gradients of
 * weights). SELECTED: number of records, bytes of one, bytes of its delta. room: of the workspace.
 */
void family_call(int direction, int depthwise, void *const parts[PARTS], void *out, uint8_t *work, uint32_t room)
{
    const mdy_conv_t p = layer(parts);
    const mdy_weighted_op_t *op = depthwise ? &mdy_depthwise : &mdy_conv2d;
    const int32_t *g = (const int32_t *)parts[GEOMETRY];
    const int32_t *ranges = (const int32_t *)parts[RANGES];
    const int32_t *selected = (const int32_t *)parts[SELECTED];
    const int8_t *w = (const int8_t *)parts[WEIGHT];
    const mdy_view_t x = {(uint8_t *)parts[X], (uint32_t)(g[1] * g[2]), (uint16_t)g[21], 0};
    const mdy_view_t y = {(uint8_t *)out, (uint32_t)(g[4] * g[5]), (uint16_t)g[22], 0};
    const mdy_view_t dy = {(uint8_t *)parts[DY], (uint32_t)(g[4] * g[5]) * (uint32_t)sizeof(mdy_grad_t), (uint16_t)g[3], 0};
    const mdy_band_t first = {(uint16_t)ranges[0], (uint16_t)ranges[1]};
    const mdy_band_t second = {(uint16_t)ranges[2], (uint16_t)ranges[3]};
    const mdy_tile_t tile = {first, second};
    const mdy_workspace_t workspace = {work, room};
    mdy_selected_t sel = {(uint8_t *)parts[RECORDS], 0, 0, 0, p.bias};
    if (selected != NULL) {
        sel.count = (uint16_t)selected[0];
        sel.record_bytes = (uint32_t)selected[1];
        sel.delta_bytes = (uint32_t)selected[2];
    }
    static mdy_sink_t sink;
    switch (direction) {
    case FORWARD:
        op->forward(&p, w, &x, &y, tile, (const int32_t *)parts[START], workspace);
        break;
    case CORRECT:
        op->correct(&p, &sel, &x, tile, (int32_t *)out);
        break;
    case BACK_INPUT:
        sink.sums = (int32_t *)out;
        sink.shape = p.in;
        for (uint16_t row = 0; row < p.in.h; row++) {
            const mdy_band_t band = {row, (uint16_t)(row + 1)};
            op->backward_input(&p, w, &sel, &dy, band, &sink, workspace);
        }
        break;
    default:
        op->backward_weight(&p, &sel, first, &dy, second, (mdy_wacc_t *)out, workspace);
    }
}
