/* SPDX-License-Identifier: Apache-2.0 */
/** Shapes, views of tensors, gradients: the vocabulary that every other header speaks. */
#ifndef MDY_TYPES_H
#define MDY_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "mdy/config.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__BYTE_ORDER__) && (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
#error "medyate stores state and banks in little-endian order; this target needs a port of generation.c"
#endif

/** Tallest convolution window that the kernels keep row pointers for; the compiler refuses more. */
#define MDY_KERNEL_MAX 16

/** Height, width, channels of a tensor; the layout in memory is always that order (NHWC, N = 1). */
typedef struct {
    uint16_t h, w, c;
} mdy_shape_t;

/**
 * The rows of a tensor that memory holds. Row r lies at base + (r % rows) * row_bytes, for
 * first <= r < first + rows: a whole tensor is the view that holds all rows, a ring holds a few.
 */
typedef struct {
    uint8_t *base;
    uint32_t row_bytes;
    uint16_t rows;
    uint16_t first;
} mdy_view_t;

/** Rows [begin, end) that a kernel is asked to compute. */
typedef struct {
    uint16_t begin, end;
} mdy_band_t;

/** Pixels that a kernel is asked to compute. */
typedef struct {
    mdy_band_t rows, columns;
} mdy_tile_t;

/** Memory that nothing else uses during a call, aligned to 8; `bytes` may be 0. A kernel is as fast as it has room. */
typedef struct {
    uint8_t *at;
    uint32_t bytes;
} mdy_workspace_t;

/** All rows, however many there are. An object, since gcc gives every literal room on the stack. */
static const mdy_band_t mdy_all_rows = {0, UINT16_MAX};
#define MDY_ALL mdy_all_rows

static inline int8_t *mdy_row(const mdy_view_t *view, int32_t row)
{
    return (int8_t *)(view->base + ((uint32_t)row % view->rows) * view->row_bytes);
}

static inline mdy_grad_t *mdy_grad_row(const mdy_view_t *view, int32_t row)
{
    return (mdy_grad_t *)(void *)(view->base + ((uint32_t)row % view->rows) * view->row_bytes);
}

#ifdef __cplusplus
}
#endif

#endif
