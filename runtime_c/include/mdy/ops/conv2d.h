/* SPDX-License-Identifier: Apache-2.0 */
/** 2-D convolution, int8, any kernel, stride, padding, dilation and groups; linear layers are its 1 x 1 case. */
#ifndef MDY_OPS_CONV2D_H
#define MDY_OPS_CONV2D_H

#include "mdy/ops/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Output pixels of a convolution.
 *
 *   y[oy][ox][o] = clamp(requantize(a + sum over (ky, kx, c) of (x[iy][ix][c] - x_zero) (w[o][ky][kx][c] - w_zero))
 *                        + y_zero), c over the input channels of o's group
 *   with a = acc_init[oy - rows.begin][ox - columns.begin][o] if given, else bias[o]
 *
 * Shapes   x (H, W, C)   w (OC, KH, KW, group_in)   y (OH, OW, OC)   acc_init (rows, columns, OC)
 * Types    int8 tensors, int32 accumulators
 * Memory   none of the workspace here; other families use what there is of it
 * Aliasing y must not overlap x
 * Errors   none; shapes are proved by the compiler
 * Cost     rows * columns * OC * KH * KW * group_in multiply-adds
 * Source   DESIGN.md, section 3; requantisation as in TFLite's reference kernels
 */
void mdy_conv2d_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y, mdy_tile_t tile,
                        const int32_t *acc_init, mdy_workspace_t workspace);

/**
 * What the deltas of the selected channels add to output pixels, on top of the bias.
 *
 *   acc_init[ox][o] = bias[o] + sum over (selected c, ky, kx) of delta_c[ky][kx][o] (x[iy][ix][c] - x_zero)
 *
 * Shapes   acc_init (rows, columns, OC)   delta_c (KH, KW, group_out)
 * Cost     rows * columns * group_out * KH * KW * selected multiply-adds
 * Source   DESIGN.md, section 4
 */
void mdy_conv2d_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                        int32_t *acc_init);

/**
 * Gradient with respect to the input, pixel by pixel in raster order, handed to the sink.
 *
 *   acc[c] = sum over (o, ky, kx) of g_acc[oy][ox][o] (w[o][ky][kx][c] - w_zero + delta_c[ky][kx][o])
 *
 * Shapes   dy (OH, OW, OC), already masked
 * Units    acc carries 2^(e_y + grad_exponent)
 * Memory   C int32 behind the sink; `rows` are rows of the input
 * Errors   none; grad_mult is chosen so that no sum passes 2^31
 * Source   DESIGN.md, section 3
 */
void mdy_conv2d_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const mdy_view_t *dy,
                               mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace);

/**
 * Adds the gradient with respect to the weights of the selected input channels.
 *
 *   sums[c][ky, kx][o] += sum over (oy, ox) of dy[oy][ox][o] (x_c[iy][ix] - x_zero)
 *
 * Shapes   dy (OH, OW, OC), already masked   x_c (H, W), saved during forward   sums (selected, taps, group_out)
 * Units    sums carry 2^e_y; multiply by s_x s_w[o] / s_y for dL/dW_q
 * Memory   nothing but the workspace; `rows` are rows of the output, `taps` those of the window that are asked for
 * Source   MeDyate, arXiv 2510.20979, section 3.1; DESIGN.md, section 3
 */
void mdy_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps, const mdy_view_t *dy,
                                mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace);

/** Offset of weight (o, tap, c) in the packed layout (OC, KH, KW, group_in). */
uint32_t mdy_conv2d_weight_offset(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c);

extern const mdy_weighted_op_t mdy_conv2d;

#ifdef __cplusplus
}
#endif

#endif
