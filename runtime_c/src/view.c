/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/view.h"

#include <string.h>

#include "mdy/simd.h"

mdy_view_t mdy_view(const mdy_t *m, const mdy_tensor_t *t)
{
    const mdy_view_t view = {m->planned + t->offset, (uint32_t)t->shape.w * t->shape.c, t->rows, 0};
    return view;
}

mdy_view_t mdy_grad_view(const mdy_t *m, const mdy_gradient_t *g)
{
    const uint32_t row = (uint32_t)g->shape.w * g->shape.c * (uint32_t)sizeof(mdy_grad_t);
    const mdy_view_t view = {m->planned + g->offset, row, g->rows, 0};
    return view;
}

uint8_t *mdy_mask_row(const mdy_t *m, const mdy_mask_t *mask, mdy_shape_t shape, int32_t row)
{
    const uint32_t row_bytes = ((uint32_t)shape.w * shape.c + 7u) / 8u;
    return m->planned + mask->offset + (uint32_t)row % mask->rows * row_bytes;
}

void mdy_keep_mask(const mdy_t *m, const mdy_mask_t *mask, uint16_t order, const mdy_tensor_t *y, uint16_t row,
                   mdy_range_t range)
{
    if (!m->training || mask->offset == MDY_NONE || order < m->deepest) {
        return;
    }
    const mdy_view_t view = mdy_view(m, y);
    const uint32_t n = view.row_bytes;
    const int8_t *values = mdy_row(&view, row);
    uint8_t *bits = mdy_mask_row(m, mask, y->shape, row);
    const int32_t first = range.low + 1;
    const int32_t last = range.high - 1;
    if (first > last || first > INT8_MAX || last < INT8_MIN) {
        memset(bits, 0, (n + 7) / 8);
        return;
    }
    const uint32_t firsts = (uint32_t)(uint8_t)first * 0x01010101u;
    const uint32_t lasts = (uint32_t)(uint8_t)last * 0x01010101u;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const uint32_t low = mdy_between(mdy_load4(values + i), firsts, lasts);
        bits[i / 8] = (uint8_t)(low | mdy_between(mdy_load4(values + i + 4), firsts, lasts) << 4);
    }
    uint32_t byte = 0;
    for (uint32_t bit = 0; i + bit < n; bit++) {
        byte |= (uint32_t)(values[i + bit] >= first && values[i + bit] <= last) << bit;
        bits[i / 8] = (uint8_t)byte;
    }
}

int mdy_go_on(mdy_t *m)
{
    if (!m->aborted && m->yield != NULL && m->yield(m->yield_context) != 0) {
        m->aborted = 1;
    }
    return !m->aborted;
}
