/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/activation.h"

#include "mdy/fixed.h"
#include "mdy/view.h"

void mdy_activation_forward(const mdy_activation_t *p, const int8_t *x, int8_t *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        y[i] = p->table[x[i] + 128];
    }
}

void mdy_activation_backward(const mdy_activation_t *p, const int8_t *x, mdy_grad_t *dy, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        dy[i] = (mdy_grad_t)mdy_round_shift((int32_t)dy[i] * p->slope[x[i] + 128], 14);
    }
}

void mdy_run_activation(mdy_t *m, const mdy_activation_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                        mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_activation_forward(p, mdy_row(&x_view, walk.row), mdy_row(&y_view, walk.row), x_view.row_bytes);
    }
}

void mdy_back_activation(mdy_t *m, const mdy_activation_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                         const mdy_gradient_t *dx)
{
    (void)dx; /* the same buffer */
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    mdy_activation_backward(p, (const int8_t *)m->planned + x->offset, (mdy_grad_t *)(void *)(m->planned + dy->offset),
                            mdy_tensor_bytes(x));
}
