/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/mul.h"

#include "mdy/fixed.h"

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
