/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/max_pool.h"

#include "mdy/gradient.h"
#include "mdy/view.h"

/* The first largest value of channel c in a window. */
typedef struct {
    int32_t y, x;
    int8_t value;
} place_t;

static place_t largest(const mdy_view_t *x, const mdy_window_t *w, int32_t channels, int32_t c)
{
    place_t best = {w->y0, w->x0, mdy_row(x, w->y0)[w->x0 * channels + c]};
    for (int32_t iy = w->y0; iy < w->y1; iy++) {
        const int8_t *row = mdy_row(x, iy) + c;
        for (int32_t ix = w->x0; ix < w->x1; ix++) {
            if (row[ix * channels] > best.value) {
                best = (place_t){iy, ix, row[ix * channels]};
            }
        }
    }
    return best;
}

void mdy_max_pool_forward(const mdy_max_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                          const mdy_view_t *y, mdy_band_t rows)
{
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        int8_t *out = mdy_row(y, oy);
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            const mdy_window_t w = mdy_window(&p->extent, x_shape, oy, ox);
            for (int32_t c = 0; c < x_shape.c; c++) {
                *out++ = largest(x, &w, x_shape.c, c).value;
            }
        }
    }
}

void mdy_max_pool_gather(const mdy_max_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                         const mdy_view_t *dy, int32_t iy, int32_t ix, int32_t *acc)
{
    const mdy_window_t outputs = mdy_covering(&p->extent, y_shape, iy, ix);
    for (int32_t oy = outputs.y0; oy < outputs.y1; oy++) {
        for (int32_t ox = outputs.x0; ox < outputs.x1; ox++) {
            const mdy_window_t w = mdy_window(&p->extent, x_shape, oy, ox);
            const mdy_grad_t *g = mdy_grad_row(dy, oy) + ox * y_shape.c;
            for (int32_t c = 0; c < y_shape.c; c++) {
                const place_t best = largest(x, &w, x_shape.c, c);
                if (best.y == iy && best.x == ix) {
                    acc[c] += g[c];
                }
            }
        }
    }
}

void mdy_run_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_max_pool_forward(p, x->shape, &x_view, y->shape, &y_view, mdy_this_band(&walk));
    }
}

void mdy_back_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                       const mdy_gradient_t *dx, const mdy_joins_t *joins)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t x_view = mdy_view(m, x);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot], 0);
    for (mdy_rows_t walk = mdy_rows(m, dx->shape.h, MDY_ALL); mdy_next_row(&walk);) {
        for (uint16_t ix = 0; ix < dx->shape.w; ix++) {
            mdy_max_pool_gather(p, x->shape, &x_view, dy->shape, &dy_view, walk.row, ix, mdy_sink_begin(&sink));
            mdy_sink_end(&sink, walk.row, ix);
        }
    }
    mdy_sink_close(&sink);
}
