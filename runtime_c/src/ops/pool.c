/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/pool.h"

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/gradient.h"
#include "mdy/ops/window.h"
#include "mdy/view.h"

void mdy_pool_backward(const mdy_pool_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, mdy_shape_t x_shape,
                       const mdy_view_t *dx, mdy_band_t rows)
{
    const mdy_extent_t *e = &p->extent;
    const uint32_t pixel_bytes = x_shape.c * (uint32_t)sizeof(mdy_grad_t);
    for (int32_t iy = rows.begin; iy < rows.end; iy++) {
        mdy_grad_t *out = mdy_grad_row(dx, iy);
        const int32_t oy = iy / e->stride_h;
        const int inside_y = oy < y_shape.h && iy - oy * e->stride_h < e->kernel_h;
        for (int32_t ix = 0; ix < x_shape.w; ix++) {
            const int32_t ox = ix / e->stride_w;
            if (inside_y && ox < y_shape.w && ix - ox * e->stride_w < e->kernel_w) {
                memcpy(out, mdy_grad_row(dy, oy) + ox * x_shape.c, pixel_bytes);
            } else {
                memset(out, 0, pixel_bytes);
            }
            out += x_shape.c;
        }
    }
}

int mdy_pool_bits(const mdy_pool_t *p)
{
    const int room = 31 - MDY_GRAD_BITS - p->overlap_bits; /* no sum of overlapping windows passes 31 bits */
    return room < 15 ? room : 15;
}

void mdy_pool_gather(const mdy_pool_t *p, mdy_shape_t x_shape, mdy_shape_t y_shape, const mdy_view_t *dy, int32_t iy,
                     int32_t ix, int32_t *acc)
{
    const mdy_window_t outputs = mdy_covering(&p->extent, y_shape, iy, ix);
    const int32_t one = 1 << mdy_pool_bits(p);
    for (int32_t oy = outputs.y0; oy < outputs.y1; oy++) {
        for (int32_t ox = outputs.x0; ox < outputs.x1; ox++) {
            const mdy_window_t w = mdy_window(&p->extent, x_shape, oy, ox);
            const int32_t count = (w.y1 - w.y0) * (w.x1 - w.x0);
            const int32_t share = (one + count / 2) / count;
            const mdy_grad_t *g = mdy_grad_row(dy, oy) + ox * y_shape.c;
            for (int32_t c = 0; c < y_shape.c; c++) {
                acc[c] += g[c] * share;
            }
        }
    }
}

void mdy_run_pool(mdy_t *m, const mdy_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_pool_forward(p, x->shape, &x_view, y->shape, &y_view, mdy_this_band(&walk));
    }
}

void mdy_back_pool(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    const mdy_band_t rows = {0, dx->shape.h};
    mdy_pool_backward(p, dy->shape, &dy_view, dx->shape, &dx_view, rows);
}

void mdy_back_pool_sum(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] - mdy_pool_bits(p), 0);
    for (mdy_rows_t walk = mdy_rows(m, dx->shape.h, MDY_ALL); mdy_next_row(&walk);) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            mdy_pool_gather(p, dx->shape, dy->shape, &dy_view, walk.row, x, mdy_sink_begin(&sink));
            mdy_sink_end(&sink, walk.row, x);
        }
    }
    mdy_sink_close(&sink);
}
