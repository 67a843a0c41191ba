/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/max_pool.h"

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

void mdy_max_pool_forward(const mdy_max_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x,
                          mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows)
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

void mdy_max_pool_gather(const mdy_max_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x,
                         mdy_shape_t y_shape, const mdy_view_t *dy, int32_t iy, int32_t ix, int32_t *acc)
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
