/* SPDX-License-Identifier: Apache-2.0 */
/* A weighted layer by the table of the family that this file is linked with, in each direction. */
#include "layer.h"

#include "mdy/ops/add.h"
#include "mdy/ops/pool.h"

enum { FORWARD = 0, CORRECT = 1, BACK_INPUT = 2, BACK_WEIGHT = 3, ADD = 4, POOL = 5 };

/* What a case consists of; NULL where a direction does not have it. */
enum { GEOMETRY, RANGES, BIAS, MULT, SHIFT, WEIGHT, X, START, GRAD_MULT, SELECTED, RECORDS, DY, PARTS };

static mdy_conv_t layer(void *const parts[PARTS])
{
    mdy_conv_t p = layer_of((const int32_t *)parts[GEOMETRY]);
    p.bias = (const int32_t *)parts[BIAS];
    p.mult = (const int32_t *)parts[MULT];
    p.shift = (const int8_t *)parts[SHIFT];
    p.grad_mult = (const int16_t *)parts[GRAD_MULT];
    return p;
}

/* A row of a sum: X and DY hold the summands. GEOMETRY: of each of the three mult, shift, zero; the range; how many. */
static void add(void *const parts[PARTS], void *out)
{
    const int32_t *g = (const int32_t *)parts[GEOMETRY];
    mdy_add_t p;
    memset(&p, 0, sizeof p);
    p.a_mult = g[0];
    p.a_shift = (int8_t)g[1];
    p.a_zero = (int16_t)g[2];
    p.b_mult = g[3];
    p.b_shift = (int8_t)g[4];
    p.b_zero = (int16_t)g[5];
    p.y_mult = g[6];
    p.y_shift = (int8_t)g[7];
    p.y_zero = (int16_t)g[8];
    p.act_min = (int16_t)g[9];
    p.act_max = (int16_t)g[10];
    const mdy_view_t a = {(uint8_t *)parts[X], (uint32_t)g[11], 1, 0};
    const mdy_view_t b = {(uint8_t *)parts[DY], (uint32_t)g[11], 1, 0};
    const mdy_view_t y = {(uint8_t *)out, (uint32_t)g[11], 1, 0};
    const mdy_band_t row = {0, 1};
    mdy_add_forward(&p, &a, &b, &y, row);
}

/* All rows of an average pool. GEOMETRY: shapes, kernel, stride, pads; mult, shift, zeros and the origin. */
static void pool(void *const parts[PARTS], void *out)
{
    const int32_t *g = (const int32_t *)parts[GEOMETRY];
    const mdy_shape_t in = {(uint16_t)g[0], (uint16_t)g[1], (uint16_t)g[2]};
    const mdy_shape_t to = {(uint16_t)g[3], (uint16_t)g[4], (uint16_t)g[2]};
    mdy_pool_t p;
    memset(&p, 0, sizeof p);
    p.extent.kernel_h = (uint8_t)g[5];
    p.extent.kernel_w = (uint8_t)g[6];
    p.extent.stride_h = (uint8_t)g[7];
    p.extent.stride_w = (uint8_t)g[8];
    p.extent.pad_top = (uint8_t)g[9];
    p.extent.pad_left = (uint8_t)g[10];
    p.mult = g[11];
    p.shift = (int8_t)g[12];
    p.x_zero = (int16_t)g[13];
    p.y_zero = (int16_t)g[14];
    p.origin = (int16_t)g[15];
    const mdy_view_t x = {(uint8_t *)parts[X], (uint32_t)in.w * in.c, in.h, 0};
    const mdy_view_t y = {(uint8_t *)out, (uint32_t)to.w * to.c, to.h, 0};
    const mdy_band_t rows = {0, to.h};
    mdy_pool_forward(&p, in, &x, to, &y, rows);
}

/*
 * out holds what is added to, or anything. RANGES: of rows and columns (forward, correct), of taps and rows (gradients of
 * weights), or how many rows of the input at once. SELECTED: number of records, bytes of one, bytes of its delta. room: of the workspace.
 */
void family_call(int direction, int depthwise, void *const parts[PARTS], void *out, uint8_t *work, uint32_t room)
{
    if (direction == ADD || direction == POOL) {
        (direction == ADD ? add : pool)(parts, out);
        return;
    }
    const mdy_conv_t p = layer(parts);
    const mdy_weighted_op_t *op = depthwise ? &mdy_depthwise : &mdy_conv2d;
    const int32_t *g = (const int32_t *)parts[GEOMETRY];
    const int32_t *ranges = (const int32_t *)parts[RANGES];
    const int32_t *selected = (const int32_t *)parts[SELECTED];
    const int8_t *w = (const int8_t *)parts[WEIGHT];
    const mdy_view_t x = {(uint8_t *)parts[X], (uint32_t)(g[1] * g[2]), (uint16_t)g[21], 0};
    const mdy_view_t y = {(uint8_t *)out, (uint32_t)(g[4] * g[5]), (uint16_t)g[22], 0};
    const mdy_view_t dy = {(uint8_t *)parts[DY], (uint32_t)(g[4] * g[5]) * (uint32_t)sizeof(mdy_grad_t), (uint16_t)g[3],
                           0};
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
        for (uint16_t row = 0; row < p.in.h; row = (uint16_t)(row + first.end)) {
            const mdy_band_t band = {row, (uint16_t)(row + first.end < p.in.h ? row + first.end : p.in.h)};
            op->backward_input(&p, w, &sel, &dy, band, &sink, workspace);
        }
        break;
    default:
        op->backward_weight(&p, &sel, first, &dy, second, (mdy_wacc_t *)out, workspace);
    }
}
