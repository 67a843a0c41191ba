/* SPDX-License-Identifier: Apache-2.0 */
/** The same values in the same order under another shape; the copy needs no kernel of its own. */
#ifndef MDY_OPS_RESHAPE_H
#define MDY_OPS_RESHAPE_H

#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Another shape for the same values. */
typedef struct {
    uint16_t order;
} mdy_reshape_t;

/** The step: rows of y from planned tensors. All of them, whatever is asked for. */
void mdy_run_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Copies dy under another shape. */
void mdy_back_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx);

#ifdef __cplusplus
}
#endif

#endif
