/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/add.h"

#include "mdy/view.h"

void mdy_run_add(mdy_t *m, const mdy_add_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b, const mdy_tensor_t *y,
                 mdy_band_t rows)
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
