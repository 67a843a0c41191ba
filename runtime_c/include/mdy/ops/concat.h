/* SPDX-License-Identifier: Apache-2.0 */
/** Tensors side by side along one axis. */
#ifndef MDY_OPS_CONCAT_H
#define MDY_OPS_CONCAT_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Tensors side by side. */
typedef struct {
    uint8_t axis;          /* 0 height, 1 width, 2 channels */
    const uint16_t *first; /* where each input begins on that axis */
    uint16_t order;
} mdy_concat_t;

/** Writes those values of input number `index` that lie in `rows` of y; x (H, W, C) is equal to y off the axis. */
void mdy_concat_forward(const mdy_concat_t *p, uint32_t index, mdy_shape_t x_shape, const mdy_view_t *x,
                        mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows);

/** Takes the gradient of input number `index` out of dy; exponent and factor stay. */
void mdy_concat_backward(const mdy_concat_t *p, uint32_t index, mdy_shape_t y_shape, const mdy_view_t *dy,
                         mdy_shape_t x_shape, const mdy_view_t *dx);

/** The step: rows of y from planned tensors. Of input `index` alone. */
void mdy_run_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_tensor_t *x, const mdy_tensor_t *y,
                    mdy_band_t rows);

/** Takes one input's part out of dy. dx may be NULL. */
void mdy_back_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_gradient_t *dy,
                     const mdy_gradient_t *dx);

#ifdef __cplusplus
}
#endif

#endif
