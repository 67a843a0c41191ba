/* SPDX-License-Identifier: Apache-2.0 */
/* A sum for cores with the M-profile vector extension, four values at a time. */
#include "mdy/ops/add.h"

#include "mdy/fixed.h"
#include "mdy/mve.h"

/* Head room for the two rescaled inputs, as in TFLite's reference. */
#define LEFT_SHIFT 20

static int8_t one_value(const mdy_add_t *p, int32_t a, int32_t b)
{
    const int32_t sum = mdy_requantize((a - p->a_zero) * (1 << LEFT_SHIFT), p->a_mult, p->a_shift) +
                        mdy_requantize((b - p->b_zero) * (1 << LEFT_SHIFT), p->b_mult, p->b_shift);
    return mdy_output8(mdy_requantize(sum, p->y_mult, p->y_shift), p->y_zero, p->act_min, p->act_max);
}

/* What four values less the zero point become, rescaled: zero is negative, and shifted as they are. */
static inline mdy_v4_t rescaled(const int8_t *from, int32_t zero, int32_t mult, int32_t shift)
{
    const mdy_v4_t value = mdy_v4_mul(mdy_v4_load8(from), mdy_v4_all(1 << LEFT_SHIFT));
    return mdy_v4_scale_down(mdy_v4_add(value, mdy_v4_all(zero)), mult, shift);
}

/* A row whose multipliers scale down, in fours. */
static void add_fours(const mdy_add_t *p, const int8_t *a, const int8_t *b, int8_t *y, uint32_t count)
{
    /* Copies: a store of int8 may be to anything, and they would be read again each time. */
    const mdy_add_t own = *p;
    const int32_t a_zero = -own.a_zero * (1 << LEFT_SHIFT);
    const int32_t b_zero = -own.b_zero * (1 << LEFT_SHIFT);
    const mdy_v4_t zero = mdy_v4_all(own.y_zero);
    const mdy_v4_t low = mdy_v4_all(own.act_min);
    const mdy_v4_t high = mdy_v4_all(own.act_max);
#pragma GCC unroll 1
    for (const int8_t *end = y + count; y != end; a += MDY_LANES, b += MDY_LANES, y += MDY_LANES) {
        const mdy_v4_t sum = mdy_v4_add(rescaled(a, a_zero, own.a_mult, own.a_shift),
                                        rescaled(b, b_zero, own.b_mult, own.b_shift));
        mdy_v4_store8(y, mdy_v4_output(mdy_v4_scale_down(sum, own.y_mult, own.y_shift), zero, low, high));
    }
}

void mdy_add_forward(const mdy_add_t *p, const mdy_view_t *a, const mdy_view_t *b, const mdy_view_t *y, mdy_band_t rows)
{
    const int is_down = p->a_shift <= MDY_MVE_SHIFT && p->b_shift <= MDY_MVE_SHIFT && p->y_shift <= MDY_MVE_SHIFT;
    const uint32_t fours = is_down ? y->row_bytes & ~(MDY_LANES - 1u) : 0;
    for (int32_t row = rows.begin; row < rows.end; row++) {
        const int8_t *a_row = mdy_row(a, row);
        const int8_t *b_row = mdy_row(b, row);
        int8_t *y_row = mdy_row(y, row);
        add_fours(p, a_row, b_row, y_row, fours);
        for (uint32_t i = fours; i < y->row_bytes; i++) {
            y_row[i] = one_value(p, a_row[i], b_row[i]);
        }
    }
}
