/* SPDX-License-Identifier: Apache-2.0 */
/** Element-wise sum of two int8 tensors with their own scales. */
#ifndef MDY_OPS_ADD_H
#define MDY_OPS_ADD_H

#include "mdy/model.h"

/**
 * Rows of y = clamp(a + b), in TFLite's arithmetic: both inputs shifted left by 20, rescaled, summed,
 * rescaled. Backward needs no kernel: each branch's s_in / s_y is a static factor of its gradient.
 *
 * Shapes   a, b, y (H, W, C), taken from the views' row lengths
 * Aliasing y may be a or b
 * Source   TFLite reference ADD
 */
void mdy_add_forward(const mdy_add_t *p, const mdy_view_t *a, const mdy_view_t *b, const mdy_view_t *y,
                     mdy_band_t rows);

#endif
