/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/pool.h"

#include <string.h>

#include "mdy/fixed.h"

void mdy_pool_forward(const mdy_pool_t *p, mdy_shape_t x_shape, const mdy_view_t *x, mdy_shape_t y_shape,
                      const mdy_view_t *y, mdy_band_t rows)
{
    const int32_t channels = x_shape.c;
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        int8_t *out = mdy_row(y, oy);
        for (int32_t ox = 0; ox < y_shape.w; ox++) {
            for (int32_t c = 0; c < channels; c++) {
                int32_t sum = 0;
                for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                    const int8_t *in = mdy_row(x, oy * p->stride_h + ky) + ox * p->stride_w * channels + c;
                    for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                        sum += in[kx * channels] - p->x_zero;
                    }
                }
                *out++ = mdy_clamp8(mdy_requantize(sum, p->mult, p->shift) + p->y_zero, -128, 127);
            }
        }
    }
}

void mdy_pool_backward(const mdy_pool_t *p, mdy_shape_t y_shape, const mdy_view_t *dy, mdy_shape_t x_shape,
                       const mdy_view_t *dx, mdy_band_t rows)
{
    const uint32_t pixel_bytes = x_shape.c * (uint32_t)sizeof(mdy_grad_t);
    for (int32_t iy = rows.begin; iy < rows.end; iy++) {
        mdy_grad_t *out = mdy_grad_row(dx, iy);
        const int32_t oy = iy / p->stride_h;
        const int inside_y = oy < y_shape.h && iy - oy * p->stride_h < p->kernel_h;
        for (int32_t ix = 0; ix < x_shape.w; ix++) {
            const int32_t ox = ix / p->stride_w;
            if (inside_y && ox < y_shape.w && ix - ox * p->stride_w < p->kernel_w) {
                memcpy(out, mdy_grad_row(dy, oy) + ox * x_shape.c, pixel_bytes);
            } else {
                memset(out, 0, pixel_bytes);
            }
            out += x_shape.c;
        }
    }
}
