/* SPDX-License-Identifier: Apache-2.0 */
/* Average pooling in portable C. */
#include "mdy/fixed.h"
#include "mdy/ops/pool.h"

/* Sum over the pixels of a window, each minus `zero`. */
static int32_t window_sum(const mdy_view_t *x, const mdy_window_t *w, int32_t channels, int32_t c, int32_t zero)
{
    int32_t sum = 0;
    for (int32_t iy = w->y0; iy < w->y1; iy++) {
        const int8_t *in = mdy_row(x, iy) + c;
        for (int32_t ix = w->x0; ix < w->x1; ix++) {
            sum += in[ix * channels] - zero;
        }
    }
    return sum;
}

void mdy_pool_forward(const mdy_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows)
{
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        int8_t *out = mdy_row(y, oy);
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            const mdy_window_t w = mdy_window(&p->extent, x_shape, oy, ox);
            const int32_t count = (w.y1 - w.y0) * (w.x1 - w.x0);
            for (int32_t c = 0; c < x_shape.c; c++) {
                if (p->mult != 0) {
                    const int32_t sum = window_sum(x, &w, x_shape.c, c, p->x_zero);
                    *out++ = mdy_output8(mdy_requantize(sum, p->mult, p->shift), p->y_zero, -128, 127);
                } else {
                    const int32_t sum = window_sum(x, &w, x_shape.c, c, p->origin);
                    *out++ = mdy_output8(mdy_mean(sum, count), p->origin, -128, 127);
                }
            }
        }
    }
}
