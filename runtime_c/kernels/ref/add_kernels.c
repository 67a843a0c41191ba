/* SPDX-License-Identifier: Apache-2.0 */
/* A sum, in portable C and with what the DSP extension has. */
#include "mdy/ops/add.h"

#include "mdy/fixed.h"
#include "mdy/simd.h"

/* Head room for the two rescaled inputs, as in TFLite's reference. */
#define LEFT_SHIFT 20

/* How a sum is scaled down by 2^n at most 2^22, as mdy_requantize does it. */
typedef struct {
    int32_t mult;
    int32_t half; /* of 2^n; 0 without one */
    uint32_t n;
} scale_t;

static scale_t scale_of(int32_t mult, int shift)
{
    const scale_t scale = {mult, shift < 0 ? 1 << (-shift - 1) : 0, (uint32_t)-shift};
    return scale;
}

static int is_down(int shift)
{
    return shift <= 0 && shift >= -22;
}

/* mdy_requantize of half of `twice`. */
static inline int32_t scaled(int32_t twice, scale_t scale)
{
    return scale.n == 0 ? mdy_smmlar(twice, scale.mult, 0)
                        : mdy_requantize_half(twice, scale.mult, scale.half, scale.n);
}

/* A row whose multipliers scale down. */
static void add_row(const mdy_add_t *p, const int8_t *a, const int8_t *b, int8_t *y, uint32_t count)
{
    /* Copies: a store of int8 may be to anything, and they would be read again each time. */
    const scale_t a_scale = scale_of(p->a_mult, p->a_shift);
    const scale_t b_scale = scale_of(p->b_mult, p->b_shift);
    const scale_t y_scale = scale_of(p->y_mult, p->y_shift);
    const int32_t a_zero = p->a_zero;
    const int32_t b_zero = p->b_zero;
    const int32_t y_zero = p->y_zero;
    const int32_t low = p->act_min;
    const int32_t high = p->act_max;
    for (const int8_t *end = y + count; y != end; a++, b++, y++) {
        const int32_t sum = scaled((*a - a_zero) * (2 << LEFT_SHIFT), a_scale) +
                            scaled((*b - b_zero) * (2 << LEFT_SHIFT), b_scale);
        *y = mdy_clamp8(scaled(sum * 2, y_scale) + y_zero, low, high);
    }
}

void mdy_add_forward(const mdy_add_t *p, const mdy_view_t *a, const mdy_view_t *b, const mdy_view_t *y, mdy_band_t rows)
{
    for (int32_t row = rows.begin; row < rows.end; row++) {
        const int8_t *a_row = mdy_row(a, row);
        const int8_t *b_row = mdy_row(b, row);
        int8_t *y_row = mdy_row(y, row);
        if (is_down(p->a_shift) && is_down(p->b_shift) && is_down(p->y_shift)) {
            add_row(p, a_row, b_row, y_row, y->row_bytes);
            continue;
        }
        for (uint32_t i = 0; i < y->row_bytes; i++) {
            const int32_t a_value = (a_row[i] - p->a_zero) * (1 << LEFT_SHIFT);
            const int32_t b_value = (b_row[i] - p->b_zero) * (1 << LEFT_SHIFT);
            const int32_t sum = mdy_requantize(a_value, p->a_mult, p->a_shift) +
                                mdy_requantize(b_value, p->b_mult, p->b_shift);
            y_row[i] = mdy_output8(mdy_requantize(sum, p->y_mult, p->y_shift), p->y_zero, p->act_min, p->act_max);
        }
    }
}
