/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/concat.h"

#include <string.h>

#include "mdy/view.h"

/* Where pixel (iy, ix) of an input lies in y: its row, and its first value within the row. */
typedef struct {
    int32_t row;
    uint32_t value;
} place_t;

static place_t place(const mdy_concat_t *p, uint32_t index, mdy_shape_t y_shape, int32_t iy, int32_t ix)
{
    const int32_t first = p->first[index];
    const int32_t oy = p->axis == 0 ? iy + first : iy;
    const int32_t ox = p->axis == 1 ? ix + first : ix;
    const place_t found = {oy, (uint32_t)(ox * y_shape.c + (p->axis == 2 ? first : 0))};
    return found;
}

void mdy_concat_forward(const mdy_concat_t *p, uint32_t index, mdy_shape_t x_shape, const mdy_view_t *x,
                        mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows)
{
    const int32_t above = p->axis == 0 ? p->first[index] : 0;
    for (int32_t iy = 0; iy < x_shape.h; iy++) {
        if (iy + above < rows.begin || iy + above >= rows.end) {
            continue;
        }
        for (int32_t ix = 0; ix < x_shape.w; ix++) {
            const place_t to = place(p, index, y_shape, iy, ix);
            memcpy(mdy_row(y, to.row) + to.value, mdy_row(x, iy) + ix * x_shape.c, x_shape.c);
        }
    }
}

void mdy_concat_backward(const mdy_concat_t *p, uint32_t index, mdy_shape_t y_shape, const mdy_view_t *dy,
                         mdy_shape_t x_shape, const mdy_view_t *dx)
{
    const uint32_t pixel_bytes = x_shape.c * (uint32_t)sizeof(mdy_grad_t);
    for (int32_t iy = 0; iy < x_shape.h; iy++) {
        for (int32_t ix = 0; ix < x_shape.w; ix++) {
            const place_t from = place(p, index, y_shape, iy, ix);
            memcpy(mdy_grad_row(dx, iy) + ix * x_shape.c, mdy_grad_row(dy, from.row) + from.value, pixel_bytes);
        }
    }
}

void mdy_run_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_tensor_t *x, const mdy_tensor_t *y,
                    mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    mdy_concat_forward(p, index, x->shape, &x_view, y->shape, &y_view, rows);
}

void mdy_back_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_gradient_t *dy,
                     const mdy_gradient_t *dx)
{
    if (dx == NULL || mdy_stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    mdy_concat_backward(p, index, dy->shape, &dy_view, dx->shape, &dx_view);
}
