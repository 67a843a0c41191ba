/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/offset.h"

#include "mdy/fixed.h"
#include "mdy/view.h"

/* Head room for the rescaled input, as in TFLite's reference. */
#define LEFT_SHIFT 20

void mdy_offset_forward(const mdy_offset_t *p, const int8_t *x, int8_t *y, uint32_t n, uint32_t c)
{
    for (uint32_t pixel = 0; pixel < n; pixel++, x += c, y += c) {
        for (uint32_t channel = 0; channel < c; channel++) {
            const int32_t value = (x[channel] - p->x_zero) * (1 << LEFT_SHIFT);
            const int32_t sum = mdy_requantize(value, p->x_mult, p->x_shift) + p->summand[channel];
            y[channel] = mdy_output8(mdy_requantize(sum, p->y_mult, p->y_shift), p->y_zero, p->act_min, p->act_max);
        }
    }
}

void mdy_run_offset(mdy_t *m, const mdy_offset_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    const mdy_range_t range = {p->act_min, p->act_max};
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_offset_forward(p, mdy_row(&x_view, walk.row), mdy_row(&y_view, walk.row), x->shape.w, x->shape.c);
        mdy_keep_mask(m, &p->mask, p->order, y, walk.row, range);
    }
}
