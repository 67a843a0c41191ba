/* SPDX-License-Identifier: Apache-2.0 */
/** Which pixels a pool's window reads, and which windows read a pixel. */
#ifndef MDY_OPS_WINDOW_H
#define MDY_OPS_WINDOW_H

#include "mdy/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A window and its way over the map. */
typedef struct {
    uint8_t kernel_h, kernel_w; /* 1 .. 255 */
    uint8_t stride_h, stride_w;
    uint8_t pad_top, pad_left; /* below kernel_h, kernel_w */
} mdy_extent_t;

/** Rows [y0, y1), columns [x0, x1). */
typedef struct {
    int32_t y0, y1, x0, x1;
} mdy_window_t;

static inline int32_t mdy_at_least(int32_t value, int32_t low)
{
    return value < low ? low : value;
}

static inline int32_t mdy_at_most(int32_t value, int32_t high)
{
    return value > high ? high : value;
}

/** The pixels inside x that output (oy, ox) reads; never none. */
static inline mdy_window_t mdy_window(const mdy_extent_t *e, mdy_shape_t x, int32_t oy, int32_t ox)
{
    const int32_t y0 = oy * e->stride_h - e->pad_top;
    const int32_t x0 = ox * e->stride_w - e->pad_left;
    const mdy_window_t w = {mdy_at_least(y0, 0), mdy_at_most(y0 + e->kernel_h, x.h), mdy_at_least(x0, 0),
                            mdy_at_most(x0 + e->kernel_w, x.w)};
    return w;
}

/** The outputs [first, end) along one axis whose window covers coordinate i. */
static inline int32_t mdy_first_cover(int32_t i, int32_t pad, int32_t kernel, int32_t stride)
{
    const int32_t low = i + pad - kernel + 1; /* ceil(low / stride) */
    return low <= 0 ? 0 : (low + stride - 1) / stride;
}

/** The outputs inside y whose window covers pixel (iy, ix); may be none. */
static inline mdy_window_t mdy_covering(const mdy_extent_t *e, mdy_shape_t y, int32_t iy, int32_t ix)
{
    const mdy_window_t w = {mdy_first_cover(iy, e->pad_top, e->kernel_h, e->stride_h),
                            mdy_at_most((iy + e->pad_top) / e->stride_h + 1, y.h),
                            mdy_first_cover(ix, e->pad_left, e->kernel_w, e->stride_w),
                            mdy_at_most((ix + e->pad_left) / e->stride_w + 1, y.w)};
    return w;
}

#ifdef __cplusplus
}
#endif

#endif
