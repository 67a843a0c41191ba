/* SPDX-License-Identifier: Apache-2.0 */
/** What the weighted operations (conv2d, depthwise) share: parameters, deltas, the five directions. */
#ifndef MDY_OPS_CONV_H
#define MDY_OPS_CONV_H

#include "mdy/fixed.h"
#include "mdy/record.h"
#include "mdy/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Facts of one weighted layer; all of it lies in flash. Arrays have out.c entries. */
typedef struct {
    mdy_shape_t in, out;
    uint8_t kernel_h, kernel_w;     /* 1 .. MDY_KERNEL_MAX */
    uint8_t stride_h, stride_w;     /* pixels of the input */
    uint8_t dilation_h, dilation_w; /* pixels of the input */
    uint8_t pad_top, pad_left;      /* pixels; what lies beyond the input reads as x_zero */
    uint16_t group_in, group_out;   /* channels of one group; a group's outputs read its inputs only */
    int16_t x_zero, y_zero;         /* zero points, -128 .. 127 */
    int16_t w_zero;                 /* of the weights; other than 0 in files of the older uint8 scheme */
    int16_t w_min;                  /* smallest weight that training may leave: -127, or -128 with a w_zero */
    int16_t act_min, act_max;       /* range of the fused activation in output steps */
    uint8_t narrow;                 /* 1: no accumulator reaches 2^30, whatever deltas and biases become */
    const int32_t *bias;            /* in units of s_x * s_w[o] */
    const int32_t *mult;            /* s_x * s_w[o] / s_y as mult * 2^(shift - 31); 0: the output is always the same */
    const int8_t *shift;            /* and this is it */
    const int16_t *grad_mult;       /* g_acc = (g_y * grad_mult) >> (MDY_GRAD_BITS - 1) */
    int16_t grad_exponent;          /* 2-exponent of g_acc minus that of g_y */
    const uint16_t *rate_mult;      /* dq = -lr * sum * rate_mult * 2^(e_y + rate_exponent); 0: frozen */
    const int8_t *rate_exponent;
    uint16_t norm_mult; /* |dL/dw| = sum * norm_mult * 2^(e_y + norm_exponent) in units of 2^-18 */
    int16_t norm_exponent;
} mdy_conv_t;

/** Pixels of a row that a layer with deltas computes at once: there is an acc_init for so many. */
#define MDY_TILE 4u

/** Where input gradients go, pixel by pixel: joins, requantisation and maxima live behind it. */
typedef struct mdy_sink mdy_sink_t;

/** The in.c accumulators of the next pixel to add to; they hold what rounding left of the pixel before. */
int32_t *mdy_sink_begin(mdy_sink_t *sink);

/** Scratch of out.c values next to the accumulators, for one output pixel's g_acc. */
int16_t *mdy_sink_terms(mdy_sink_t *sink);

/** Stores the pixel (y, x) from the accumulators of mdy_sink_begin. */
void mdy_sink_end(mdy_sink_t *sink, int32_t y, int32_t x);

/**
 * Stores channels from c on of `count` pixels from (y, x) on of a row, instead of both of the above: the sums, `pitch` of
 * them from channel to channel, are all that is added to their accumulators. The channels of a pixel come in any order,
 * the pixels of a channel from the left to the right.
 */
void mdy_sink_channels(mdy_sink_t *sink, int32_t y, uint32_t x, uint32_t count, uint32_t c, uint32_t channels,
                       const int32_t *sums, uint32_t pitch);

/** The directions of a weighted operation; see ops/conv2d.h for what each promises. */
typedef struct {
    void (*forward)(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y, mdy_tile_t tile,
                    const int32_t *acc_init, mdy_workspace_t workspace);
    void (*correct)(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                    int32_t *acc_init);
    void (*backward_input)(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const mdy_view_t *dy,
                           mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace);
    void (*backward_weight)(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps, const mdy_view_t *dy,
                            mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace);
    uint32_t (*weight_offset)(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c);
} mdy_weighted_op_t;

/** The first output channel that reads input channel c; group_out of them do. */
static inline uint32_t mdy_first_output(const mdy_conv_t *p, uint32_t c)
{
    return c / p->group_in * p->group_out;
}

/** The window taps [begin, end) along one axis whose input coordinate start + tap * dilation is inside. */
static inline void mdy_taps(int32_t start, int32_t dilation, int32_t kernel, int32_t size, int32_t *begin, int32_t *end)
{
    int32_t low = 0;
    int32_t high = kernel;
    while (low < high && start + low * dilation < 0) {
        low++;
    }
    while (high > low && start + (high - 1) * dilation >= size) {
        high--;
    }
    *begin = low;
    *end = high;
}

/** g_acc of one output value: the gradient through forward's own requantisation. */
static inline int16_t mdy_grad_acc(const mdy_conv_t *p, mdy_grad_t g, uint32_t o)
{
    return (int16_t)(((int32_t)g * p->grad_mult[o] + (1 << (MDY_GRAD_BITS - 2))) >> (MDY_GRAD_BITS - 1));
}

/** Output o from its sum. */
static inline int8_t mdy_conv_output(const mdy_conv_t *p, uint32_t o, int32_t acc)
{
    if (p->mult[o] == 0) {
        return p->shift[o];
    }
    return mdy_output8(mdy_requantize(acc, p->mult[o], p->shift[o]), p->y_zero, p->act_min, p->act_max);
}

/** One operation's way to add an output pixel's g_acc through window tap `tap` to the input pixel's acc. */
typedef struct {
    void (*tap)(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const int16_t *g_acc, uint32_t tap,
                int32_t *acc);
    const int8_t *w;
    const mdy_selected_t *selected;
} mdy_spread_t;

/** One operation's way to add delta tap `tap` of channel c, times the input's value, to an output pixel. */
typedef void (*mdy_correct_tap_t)(const mdy_conv_t *p, const int8_t *delta, uint32_t tap, uint32_t c, int32_t value,
                                  int32_t *acc);

/** Sets acc_init of some output pixels to the bias plus what the selected channels' deltas add. */
void mdy_conv_correct(const mdy_conv_t *p, mdy_correct_tap_t add_tap, const mdy_selected_t *sel, const mdy_view_t *x,
                      mdy_tile_t tile, int32_t *acc_init);

/** Visits the input pixels of `rows` and, for each, the output pixels whose window covers it. */
void mdy_conv_spread(const mdy_conv_t *p, const mdy_spread_t *spread, const mdy_view_t *dy, mdy_band_t rows,
                     mdy_sink_t *sink);

#ifdef __cplusplus
}
#endif

#endif
