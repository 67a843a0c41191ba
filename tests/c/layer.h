/* SPDX-License-Identifier: Apache-2.0 */
/* A layer from numbers, and a sink that keeps sums of its input's gradient as they are, before anything is rounded. */
#ifndef LAYER_H
#define LAYER_H

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

/* geometry: in, out (h, w, c), kernel, stride, dilation, pad, groups' channels in and out, zero points of x, y and w,
 * range; rows of x and y that memory holds; whether it is narrow. */
static mdy_conv_t layer_of(const int32_t g[24])
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

#endif
