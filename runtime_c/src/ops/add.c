/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/add.h"

#include "mdy/fixed.h"
#include "mdy/view.h"

/* Head room for the two rescaled inputs, as in TFLite's reference. */
#define LEFT_SHIFT 20

void mdy_add_forward(const mdy_add_t *p, const mdy_view_t *a, const mdy_view_t *b, const mdy_view_t *y,
                     mdy_band_t rows)
{
    for (int32_t row = rows.begin; row < rows.end; row++) {
        const int8_t *a_row = mdy_row(a, row);
        const int8_t *b_row = mdy_row(b, row);
        int8_t *y_row = mdy_row(y, row);
        for (uint32_t i = 0; i < y->row_bytes; i++) {
            const int32_t a_value = (a_row[i] - p->a_zero) * (1 << LEFT_SHIFT);
            const int32_t b_value = (b_row[i] - p->b_zero) * (1 << LEFT_SHIFT);
            const int32_t sum = mdy_requantize(a_value, p->a_mult, p->a_shift) +
                                mdy_requantize(b_value, p->b_mult, p->b_shift);
            y_row[i] = mdy_output8(mdy_requantize(sum, p->y_mult, p->y_shift), p->y_zero, p->act_min,
                                  p->act_max);
        }
    }
}

void mdy_run_add(mdy_t *m, const mdy_add_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t a_view = mdy_view(m, a);
    const mdy_view_t b_view = mdy_view(m, b);
    const mdy_view_t y_view = mdy_view(m, y);
    const mdy_range_t range = {p->act_min, p->act_max};
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_add_forward(p, &a_view, &b_view, &y_view, mdy_this_band(&walk));
        mdy_keep_mask(m, &p->mask, p->order, y, walk.row, range);
    }
}
