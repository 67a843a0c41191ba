/* SPDX-License-Identifier: Apache-2.0 */
/** Depthwise 2-D convolution, int8, one filter per channel. */
#ifndef MDY_OPS_DEPTHWISE_H
#define MDY_OPS_DEPTHWISE_H

#include "mdy/ops/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Output pixels of a depthwise convolution; promises and units as mdy_conv2d_forward, with o = c.
 *
 * Shapes   x (H, W, C)   w (KH, KW, C)   y (OH, OW, C)   acc_init (rows, columns, C)
 * Cost     rows * columns * C * KH * KW multiply-adds
 */
void mdy_depthwise_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                           mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace);

/** What the deltas (KH, KW) of the selected channels add to output pixels, on top of the bias. */
void mdy_depthwise_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                           int32_t *acc_init);

/** Gradient with respect to the input; `rows` are rows of the input. See mdy_conv2d_backward_input. */
void mdy_depthwise_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const mdy_view_t *dy,
                                  mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace);

/** Gradient of the selected channels' filters, one sum per tap. See mdy_conv2d_backward_weight. */
void mdy_depthwise_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                   const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace);

/** Offset of weight (c, tap) in the packed layout (KH, KW, C); o equals c. */
uint32_t mdy_depthwise_weight_offset(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c);

extern const mdy_weighted_op_t mdy_depthwise;

#ifdef __cplusplus
}
#endif

#endif
