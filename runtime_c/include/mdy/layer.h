/* SPDX-License-Identifier: Apache-2.0 */
/** A weighted layer: its tables, and the steps that train it. What differs between operations is in mdy_weighted_op_t. */
#ifndef MDY_LAYER_H
#define MDY_LAYER_H

#include "mdy/ops/conv.h"
#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_FROZEN UINT16_MAX /* not a candidate layer */

/** One weighted layer. */
typedef struct {
    const mdy_weighted_op_t *op;
    const mdy_conv_t *p;
    const int8_t *weight; /* factory weights, in the operation's packed layout */
    uint32_t weight_bytes;
    mdy_mask_t mask;
    uint32_t scratch;        /* forward: MDY_TILE * OC int32 of a candidate; planned region, or MDY_NONE */
    uint32_t scratch_back;   /* backward: C int32 and OC int16 */
    uint32_t scratch_update; /* of one tap, and of biases: OC sums of a candidate whose dy is there as a whole */
    uint32_t workspace;      /* forward: planned region that is free meanwhile, and how much of it */
    uint32_t workspace_bytes;
    uint32_t workspace_back; /* the same of the gradient of its input */
    uint32_t workspace_back_bytes;
    uint32_t workspace_update; /* and of the gradient of its weights */
    uint32_t workspace_update_bytes;
    uint8_t band;       /* forward: rows that a kernel may make at once */
    uint8_t band_back;  /* and of the gradient of its input */
    uint16_t order;     /* position in the network, from the input */
    uint16_t candidate; /* index into the candidates, or MDY_FROZEN */
    uint16_t bias;      /* index into the model's biases, or MDY_FROZEN */
} mdy_layer_t;

/** One layer whose channels may be selected. */
typedef struct {
    const mdy_layer_t *layer;
    uint32_t bank_offset;  /* of its weights, from the start of a bank's weights */
    uint32_t record_bytes; /* what one selected channel costs in the epoch region */
    uint32_t delta_bytes;
    uint16_t channels;
    uint16_t first_channel; /* index of its channel 0 among all candidate channels */
} mdy_candidate_t;

/** One layer whose biases are trained, all of them in every step; arrays have out.c entries. */
typedef struct {
    const mdy_layer_t *layer;
    uint32_t first;            /* index of its first bias among all that are trained */
    int32_t most;              /* largest |bias| with which no accumulator can overflow */
    const uint16_t *rate_mult; /* dq = -lr * sum * rate_mult * 2^(e_y + rate_exponent); 0: frozen */
    const int8_t *rate_exponent;
    uint16_t norm_mult; /* |dL/db| = sum * norm_mult * 2^(e_y + norm_exponent) in units of 2^-18 */
    int16_t norm_exponent;
} mdy_biases_t;

/** The weights that a layer reads now: the active bank's, or the factory's. */
const int8_t *mdy_layer_weights(const mdy_t *m, const mdy_layer_t *layer);

/** The selected channels of a layer in this epoch; count 0 when it is frozen. */
mdy_selected_t mdy_layer_selected(const mdy_t *m, const mdy_layer_t *layer);

/**
 * Forward of output rows: gathers the selected channels of the rows of x that pass, computes y with the deltas'
 * correction, and keeps the clamp mask; gathering and masks happen in training steps only.
 */
void mdy_run_layer(mdy_t *m, const mdy_layer_t *layer, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows);

/** Rows of a layer's dx from dy and the joined gradients (NULL: none). */
void mdy_back_input(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                    const mdy_joins_t *joins, mdy_band_t rows);

/** Adds what rows of dy contribute to the weight gradients at `sums`: an offset in the planned region. */
void mdy_back_weights(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums, mdy_band_t rows);

/**
 * Updates the selected channels, after the last read of their weights: from the sums of mdy_back_weights, or
 * from the whole of dy where `sums` is MDY_NONE.
 */
void mdy_back_update(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums);

#ifdef __cplusplus
}
#endif

#endif
