/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/shortcut.h"

#include <string.h>

void mdy_shortcut_forward(const mdy_shortcut_t *p, mdy_shape_t x_shape, const mdy_view_t *x,
                          mdy_shape_t y_shape, const mdy_view_t *y, mdy_band_t rows)
{
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        int8_t *out = mdy_row(y, oy);
        const int8_t *in = mdy_row(x, oy * p->stride_h);
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            memset(out, p->zero, y_shape.c);
            memcpy(out + p->channels_before, in + ox * p->stride_w * x_shape.c, x_shape.c);
            out += y_shape.c;
        }
    }
}

void mdy_shortcut_backward(const mdy_shortcut_t *p, mdy_shape_t y_shape, const mdy_view_t *dy,
                           mdy_shape_t x_shape, const mdy_view_t *dx, mdy_band_t rows)
{
    const uint32_t pixel_bytes = x_shape.c * (uint32_t)sizeof(mdy_grad_t);
    for (int32_t iy = rows.begin; iy < rows.end; iy++) {
        mdy_grad_t *out = mdy_grad_row(dx, iy);
        memset(out, 0, x_shape.w * pixel_bytes);
        const int32_t oy = iy / p->stride_h;
        if (iy % p->stride_h != 0 || oy >= y_shape.h) {
            continue;
        }
        const mdy_grad_t *in = mdy_grad_row(dy, oy) + p->channels_before;
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            memcpy(out + ox * p->stride_w * x_shape.c, in + ox * y_shape.c, pixel_bytes);
        }
    }
}
