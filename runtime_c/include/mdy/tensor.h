/* SPDX-License-Identifier: Apache-2.0 */
/** What a plan says of a tensor, a clamp mask and a gradient: where it lies and how many rows memory holds. */
#ifndef MDY_TENSOR_H
#define MDY_TENSOR_H

#include "mdy/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_NONE UINT32_MAX /* no such offset */

/** Everything that runs: model.h. */
typedef struct mdy mdy_t;

/** An int8 tensor in the planned region. */
typedef struct {
    uint32_t offset; /* bytes from the start of the planned region */
    mdy_shape_t shape;
    uint16_t rows; /* that memory holds: all, or those of a ring */
} mdy_tensor_t;

/** A clamp mask in the planned region: one bit per element, every row begins at a byte. */
typedef struct {
    uint32_t offset; /* MDY_NONE: not kept */
    uint16_t rows;   /* that memory holds */
} mdy_mask_t;

/** A gradient in the planned region: mdy_grad_t elements that share the 2-exponent of their slot. */
typedef struct {
    uint32_t offset;
    mdy_shape_t shape;
    uint16_t slot;
    uint16_t order;  /* position of the node whose output it is the gradient of */
    uint16_t rows;   /* that memory holds: all, or those of a ring */
    mdy_mask_t mask; /* that node's clamp mask, applied as the gradient is stored; or none */
} mdy_gradient_t;

/** A second gradient of the same tensor: it counts g * mult * 2^exponent. */
typedef struct {
    const mdy_gradient_t *gradient;
    int16_t mult; /* in [2^14, 2^15) */
    int16_t exponent;
} mdy_join_t;

/** The gradients that meet in one tensor; they are summed in 32 bits before one requantisation. */
typedef struct {
    const mdy_join_t *joins;
    uint16_t count;
} mdy_joins_t;

static inline uint32_t mdy_tensor_bytes(const mdy_tensor_t *t)
{
    return (uint32_t)t->shape.h * t->shape.w * t->shape.c;
}

#ifdef __cplusplus
}
#endif

#endif
