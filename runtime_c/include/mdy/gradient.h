/* SPDX-License-Identifier: Apache-2.0 */
/** Stored gradients: exponents predicted per tensor, joins, requantisation. DESIGN.md, section 3. */
#ifndef MDY_GRADIENT_H
#define MDY_GRADIENT_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mdy_sink {
    mdy_t *m;
    const mdy_gradient_t *dx;
    mdy_view_t view;
    int32_t *acc;             /* scratch: dx->shape.c accumulators, then the layer's g_acc of one pixel */
    const mdy_joins_t *joins; /* may be NULL */
    int masked;
    int acc_exponent;    /* the accumulators carry 2^acc_exponent */
    int shift;           /* log2 of what they are multiplied by */
    int narrow;          /* 32 bits do, and what rounding takes has room in the next pixel's accumulator */
    uint32_t max;        /* largest magnitude seen, in accumulator units */
    int32_t row;         /* that is stored now, from 0 */
    const uint8_t *mask; /* of that row; NULL: none */
    mdy_grad_t *out;     /* that row */
};

/**
 * Opens dx for rows from `row` on. The first row predicts dx's exponent from its slot and this step's
 * reference, and lowers the prediction by 2/16. scratch: offset, planned region.
 */
void mdy_sink_open(mdy_sink_t *sink, mdy_t *m, const mdy_gradient_t *dx, const mdy_joins_t *joins, uint32_t scratch,
                   int acc_exponent, uint16_t row);

/** Raises the slot's prediction to what was seen. */
void mdy_sink_close(const mdy_sink_t *sink);

/**
 * Steps back do nothing for nodes below the epoch's deepest selected layer. dy has been masked before: as it was stored,
 * or here, in place.
 */
void mdy_back_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_gradient_t *dy, mdy_band_t rows);

/** Copies rows of dy; the exponent is the same, scales are static factors. */
void mdy_back_copy(mdy_t *m, uint16_t order, const mdy_gradient_t *dy, const mdy_gradient_t *dx, mdy_band_t rows);

/** Sums gradients of one tensor that no layer's own pass can join. */
void mdy_back_sum(mdy_t *m, uint16_t order, const mdy_gradient_t *dx, const mdy_joins_t *joins, uint32_t scratch);

#ifdef __cplusplus
}
#endif

#endif
