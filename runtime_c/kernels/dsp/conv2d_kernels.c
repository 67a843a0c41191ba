/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense convolution for cores with the DSP extension (Armv7E-M, Armv8-M): SMLAD adds two products of halfwords.
 *
 * A window of one pixel without a zero point of the weights is a product of matrices. It is made in blocks of two pixels
 * by two outputs: four input channels of each are widened to halfwords once, the inputs less their zero point, and serve
 * two others. All else, and what blocks leave over, is the portable kernel's.
 */
#include "mdy/ops/conv2d.h"

#include "mdy/fixed.h"
#include "mdy/simd.h"

/* Adds the products of two pixels and two outputs to acc: (pixel 0, 1) by (output 0, 1), row by row. */
static void multiply(const mdy_conv_t *p, const int8_t *x0, const int8_t *w0, int32_t acc[4])
{
    const uint32_t count = p->in.c;
    const int32_t zero = p->x_zero;
    const uint32_t minus_zero = ((uint32_t)-zero & 0xFFFFu) * 0x10001u; /* in both halfwords */
    const int8_t *x1 = x0 + count;
    const int8_t *w1 = w0 + count;
    int32_t a00 = acc[0];
    int32_t a01 = acc[1];
    int32_t a10 = acc[2];
    int32_t a11 = acc[3];
    uint32_t c = 0;
    for (; c + 4 <= count; c += 4) {
        const uint32_t x0_bytes = mdy_load4(x0 + c);
        const uint32_t x1_bytes = mdy_load4(x1 + c);
        const uint32_t w0_bytes = mdy_load4(w0 + c);
        const uint32_t w1_bytes = mdy_load4(w1 + c);
        const uint32_t w0_even = mdy_sxtb16(w0_bytes);
        const uint32_t w1_even = mdy_sxtb16(w1_bytes);
        const uint32_t x0_even = mdy_sxtab16(minus_zero, x0_bytes);
        const uint32_t x1_even = mdy_sxtab16(minus_zero, x1_bytes);
        a00 = mdy_smlad(x0_even, w0_even, a00);
        a01 = mdy_smlad(x0_even, w1_even, a01);
        a10 = mdy_smlad(x1_even, w0_even, a10);
        a11 = mdy_smlad(x1_even, w1_even, a11);
        const uint32_t w0_odd = mdy_sxtb16(mdy_ror8(w0_bytes));
        const uint32_t w1_odd = mdy_sxtb16(mdy_ror8(w1_bytes));
        const uint32_t x0_odd = mdy_sxtab16(minus_zero, mdy_ror8(x0_bytes));
        const uint32_t x1_odd = mdy_sxtab16(minus_zero, mdy_ror8(x1_bytes));
        a00 = mdy_smlad(x0_odd, w0_odd, a00);
        a01 = mdy_smlad(x0_odd, w1_odd, a01);
        a10 = mdy_smlad(x1_odd, w0_odd, a10);
        a11 = mdy_smlad(x1_odd, w1_odd, a11);
    }
    for (; c < count; c++) {
        a00 += (x0[c] - zero) * w0[c];
        a01 += (x0[c] - zero) * w1[c];
        a10 += (x1[c] - zero) * w0[c];
        a11 += (x1[c] - zero) * w1[c];
    }
    acc[0] = a00;
    acc[1] = a01;
    acc[2] = a10;
    acc[3] = a11;
}

static int8_t output(const mdy_conv_t *p, int32_t acc, uint32_t o)
{
    return mdy_output8(mdy_requantize(acc, p->mult[o], p->shift[o]), p->y_zero, p->act_min, p->act_max);
}

/* Two pixels of a row, an even number of outputs. start: of both pixels' sums, or NULL: the biases. */
static void two_pixels(const mdy_conv_t *p, const int8_t *w, const int8_t *x, int8_t *y, const int32_t *start)
{
    const uint32_t outputs = p->out.c;
    const int32_t *bias = start != NULL ? start : p->bias;
    const int32_t *next = start != NULL ? start + outputs : p->bias;
    for (uint32_t o = 0; o + 2 <= outputs; o += 2) {
        int32_t acc[4] = {bias[o], bias[o + 1], next[o], next[o + 1]};
        multiply(p, x, w + o * p->in.c, acc);
        y[o] = output(p, acc[0], o);
        y[o + 1] = output(p, acc[1], o + 1);
        y[outputs + o] = output(p, acc[2], o);
        y[outputs + o + 1] = output(p, acc[3], o + 1);
    }
}

static int is_product(const mdy_conv_t *p)
{
    return p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 && p->pad_top == 0 &&
           p->pad_left == 0 && p->group_in == p->in.c && p->w_zero == 0 && p->out.c % 2u == 0;
}

static void dsp_conv2d_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                               mdy_tile_t tile, const int32_t *acc_init)
{
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    if (!is_product(p) || width < 2) {
        mdy_conv2d_forward(p, w, x, y, tile, acc_init);
        return;
    }
    for (uint16_t row = tile.rows.begin; row < tile.rows.end; row++) {
        uint32_t column = tile.columns.begin;
        for (; column + 2 <= tile.columns.end; column += 2) {
            two_pixels(p, w, mdy_row(x, row) + column * p->in.c, mdy_row(y, row) + column * p->out.c, acc_init);
            acc_init += acc_init != NULL ? 2u * p->out.c : 0u;
        }
        if (column < tile.columns.end) {
            const mdy_tile_t last = {{row, (uint16_t)(row + 1)}, {(uint16_t)column, tile.columns.end}};
            mdy_conv2d_forward(p, w, x, y, last, acc_init);
            acc_init += acc_init != NULL ? p->out.c : 0u;
        }
    }
}

const mdy_weighted_op_t mdy_conv2d = {
    .forward = dsp_conv2d_forward,
    .correct = mdy_conv2d_correct,
    .backward_input = mdy_conv2d_backward_input,
    .backward_weight = mdy_conv2d_backward_weight,
    .weight_offset = mdy_conv2d_weight_offset,
};
