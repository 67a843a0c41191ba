/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/move.h"

#include <string.h>

#include "mdy/gradient.h"
#include "mdy/view.h"

/* Input coordinates of output element (o0, o1, o2), in the input's own order of axes; 0: outside. */
static int source(const mdy_move_t *p, mdy_shape_t shape, const int32_t out[3], int32_t in[3])
{
    const int32_t size[3] = {shape.h, shape.w, shape.c};
    for (int i = 0; i < 3; i++) {
        const int32_t at = p->start[i] + out[i] / p->repeat[i] * p->step[i];
        if (at < 0 || at >= size[p->axes[i]]) {
            return 0;
        }
        in[p->axes[i]] = at;
    }
    return 1;
}

void mdy_move_forward(const mdy_move_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows)
{
    int32_t in[3];
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        int8_t *out = mdy_row(y, oy);
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            for (int32_t c = 0; c < y_shape.c; c++) {
                const int32_t at[3] = {oy, ox, c};
                *out++ = source(p, x_shape, at, in) ? mdy_row(x, in[0])[in[1] * x_shape.c + in[2]] : (int8_t)p->zero;
            }
        }
    }
}

void mdy_move_backward(const mdy_move_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, mdy_shape_t x_shape,
                       const mdy_view_t *dx)
{
    int32_t in[3];
    for (int32_t iy = 0; iy < x_shape.h; iy++) {
        memset(mdy_grad_row(dx, iy), 0, dx->row_bytes);
    }
    for (int32_t oy = 0; oy < y_shape.h; oy++) {
        const mdy_grad_t *g = mdy_grad_row(dy, oy);
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            for (int32_t c = 0; c < y_shape.c; c++) {
                const int32_t at[3] = {oy, ox, c};
                if (source(p, x_shape, at, in)) {
                    mdy_grad_row(dx, in[0])[in[1] * x_shape.c + in[2]] = *g;
                }
                g++;
            }
        }
    }
}

void mdy_move_gather(const mdy_move_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, int32_t iy, int32_t ix,
                     int32_t *acc)
{
    for (int32_t oy = iy * p->repeat[0]; oy < (iy + 1) * p->repeat[0]; oy++) {
        for (int32_t ox = ix * p->repeat[1]; ox < (ix + 1) * p->repeat[1]; ox++) {
            const mdy_grad_t *g = mdy_grad_row(dy, oy) + ox * y_shape.c;
            for (int32_t c = 0; c < y_shape.c; c++) {
                acc[c / p->repeat[2]] += g[c];
            }
        }
    }
}

void mdy_run_move(mdy_t *m, const mdy_move_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_move_forward(p, x->shape, &x_view, y->shape, &y_view, mdy_this_band(&walk));
    }
}

void mdy_back_move(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    mdy_move_backward(p, dy->shape, &dy_view, dx->shape, &dx_view);
}

void mdy_back_enlarged(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot], 0);
    for (mdy_rows_t walk = mdy_rows(m, dx->shape.h, MDY_ALL); mdy_next_row(&walk);) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            mdy_move_gather(p, dy->shape, &dy_view, walk.row, x, mdy_sink_begin(&sink));
            mdy_sink_end(&sink, walk.row, x);
        }
    }
    mdy_sink_close(&sink);
}
