/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/mul.h"

#include "mdy/fixed.h"
#include "mdy/gradient.h"
#include "mdy/view.h"

void mdy_mul_forward(const mdy_mul_t *p, const mdy_view_t *a, mdy_shape_t b_shape, const mdy_view_t *b,
                     mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows)
{
    const uint32_t row = (uint32_t)y_shape.w * y_shape.c;
    const uint32_t b_row = (uint32_t)b_shape.w * b_shape.c;
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        const int8_t *a_values = mdy_row(a, oy);
        const int8_t *b_values = mdy_row(b, b_shape.h == 1 ? 0 : oy);
        int8_t *out = mdy_row(y, oy);
        for (uint32_t i = 0; i < row; i++) {
            const int32_t product = (a_values[i] - p->a_zero) * (b_values[i % b_row] - p->b_zero);
            out[i] = mdy_output8(mdy_requantize(product, p->mult, p->shift), p->y_zero, p->act_min, p->act_max);
        }
    }
}

int mdy_mul_shift(uint32_t pixels)
{
    int shift = MDY_GRAD_BITS - 8;
    while ((int64_t)pixels * mdy_round_shift(MDY_GRAD_MAX * 255, shift) > INT32_MAX) {
        shift++;
    }
    return shift;
}

void mdy_mul_gather(const mdy_grad_t *dy, const int8_t *other, int32_t zero, uint32_t n, int shift, int32_t *acc)
{
    for (uint32_t i = 0; i < n; i++) {
        acc[i] += (int32_t)mdy_round_shift((int64_t)dy[i] * (other[i] - zero), shift);
    }
}

void mdy_run_mul(mdy_t *m, const mdy_mul_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b, const mdy_tensor_t *y,
                 mdy_band_t rows)
{
    const mdy_view_t a_view = mdy_view(m, a);
    const mdy_view_t b_view = mdy_view(m, b);
    const mdy_view_t y_view = mdy_view(m, y);
    const mdy_range_t range = {p->act_min, p->act_max};
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_mul_forward(p, &a_view, b->shape, &b_view, y->shape, &y_view, mdy_this_band(&walk));
        mdy_keep_mask(m, &p->mask, p->order, y, walk.row, range);
    }
}

/* One input's gradient of a product: pixel by pixel, or one sum over all pixels for each channel. */
static void back_factor(mdy_t *m, const mdy_mul_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                        const mdy_tensor_t *other, int32_t zero, const mdy_joins_t *joins)
{
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t view = mdy_view(m, other);
    const uint32_t channels = dy->shape.c;
    const int summed = dx->shape.h != dy->shape.h || dx->shape.w != dy->shape.w;
    const int broadcast = other->shape.h != dy->shape.h || other->shape.w != dy->shape.w;
    mdy_sink_t sink;
    const int shift = mdy_mul_shift(summed ? (uint32_t)dy->shape.h * dy->shape.w : 1);
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] + shift, 0);
    int32_t *acc = summed ? mdy_sink_begin(&sink) : NULL;
    for (mdy_rows_t walk = mdy_rows(m, dy->shape.h, MDY_ALL); mdy_next_row(&walk);) {
        for (uint16_t x = 0; x < dy->shape.w; x++) {
            const int8_t *values = mdy_row(&view, broadcast ? 0 : walk.row) + (broadcast ? 0 : x * channels);
            acc = summed ? acc : mdy_sink_begin(&sink);
            mdy_mul_gather(mdy_grad_row(&dy_view, walk.row) + x * channels, values, zero, channels, shift, acc);
            if (!summed) {
                mdy_sink_end(&sink, walk.row, x);
            }
        }
    }
    if (summed) {
        mdy_sink_end(&sink, 0, 0);
    }
    mdy_sink_close(&sink);
}

void mdy_back_mul(mdy_t *m, const mdy_mul_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *a, const mdy_tensor_t *b,
                  const mdy_gradient_t *da, const mdy_gradient_t *db, const mdy_joins_t *a_joins,
                  const mdy_joins_t *b_joins)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    if (da != NULL) {
        back_factor(m, p, dy, da, b, p->b_zero, a_joins);
    }
    if (db != NULL) {
        back_factor(m, p, dy, db, a, p->a_zero, b_joins);
    }
}
