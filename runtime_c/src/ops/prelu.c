/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/prelu.h"

#include "mdy/fixed.h"
#include "mdy/view.h"

/* The output of one value, before it saturates. */
static int32_t output(const mdy_prelu_t *p, int32_t x, uint32_t channel)
{
    const int32_t value = x - p->x_zero;
    const int32_t scaled = value >= 0 ? mdy_requantize(value, p->mult, p->shift)
                                      : mdy_requantize(value * p->slope[channel], p->below_mult, p->below_shift);
    return mdy_clamp32((int64_t)scaled + p->y_zero);
}

void mdy_prelu_forward(const mdy_prelu_t *p, const int8_t *x, int8_t *y, uint32_t n, uint32_t c)
{
    for (uint32_t pixel = 0; pixel < n; pixel++, x += c, y += c) {
        for (uint32_t channel = 0; channel < c; channel++) {
            const int32_t value = output(p, x[channel], channel);
            y[channel] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
        }
    }
}

void mdy_prelu_backward(const mdy_prelu_t *p, const int8_t *x, mdy_grad_t *dy, uint32_t n, uint32_t c)
{
    for (uint32_t pixel = 0; pixel < n; pixel++, x += c, dy += c) {
        for (uint32_t channel = 0; channel < c; channel++) {
            const int32_t value = output(p, x[channel], channel);
            const int32_t derivative = x[channel] >= p->x_zero ? p->above : p->derivative[channel];
            const int32_t inside = value >= -128 && value <= 127 ? derivative : 0;
            dy[channel] = (mdy_grad_t)mdy_round_shift((int32_t)dy[channel] * inside, 14);
        }
    }
}

void mdy_run_prelu(mdy_t *m, const mdy_prelu_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_prelu_forward(p, mdy_row(&x_view, walk.row), mdy_row(&y_view, walk.row), x->shape.w, x->shape.c);
    }
}

void mdy_back_prelu(mdy_t *m, const mdy_prelu_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                    const mdy_gradient_t *dx)
{
    (void)dx; /* the same buffer */
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    mdy_prelu_backward(p, (const int8_t *)m->planned + x->offset, (mdy_grad_t *)(void *)(m->planned + dy->offset),
                       (uint32_t)x->shape.h * x->shape.w, x->shape.c);
}
