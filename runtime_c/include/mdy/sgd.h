/* SPDX-License-Identifier: Apache-2.0 */
/**
 * SGD with stochastic rounding on the deltas of the selected channels. DESIGN.md, section 3.
 *
 * Where a layer's gradient is bounded, its weight gradients are made twice: the first time they are measured, the
 * second time applied at the rate that follows. They are nowhere kept in between. Where an update is of several samples,
 * they are made once: what each sample gives is summed up in the records, and the sum is measured.
 */
#ifndef MDY_SGD_H
#define MDY_SGD_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What is done with the sums of a tap: their squares go to the norms, they change deltas, or wait for their batch. */
enum { MDY_MEASURE = 1, MDY_APPLY = 2, MDY_ADD = 4 };

struct mdy_update {
    mdy_t *m;
    const mdy_layer_t *layer;
    const mdy_selected_t *selected;
    const int8_t *weights;
    mdy_wacc_t *sums; /* group_out of one tap; or of every tap of every slot, when rows come one by one */
    uint8_t by_rows;
    uint32_t key;  /* of this step's and layer's random numbers */
    int exponent;  /* the sums carry 2^exponent */
    uint8_t does;  /* of the above, added */
    uint64_t squares;      /* of all sums measured so far, in norm units; saturated */
    uint32_t rate_mult;    /* at which sums are applied */
    int32_t rate_exponent;
};

/** Does that with the sums of one tap, group_out of them. */
void mdy_update_tap(mdy_update_t *update, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums);

/** Lowers the rate of an update where what was measured is longer than the schedule's clip. */
void mdy_update_clip(mdy_update_t *update);

/** Updates a layer's biases from their sums, out.c of them; in batches, too, after every sample, at its share. */
void mdy_update_biases(mdy_update_t *update, const mdy_biases_t *p, int32_t *bias);

/**
 * Takes what a batch has summed up from the deltas of a layer's selected channels, and clears it. The mean gradient is
 * clipped; the update's rate is that of the whole batch, its key that of this rounding.
 */
void mdy_update_batch(mdy_update_t *update);

/** Whether no product or shift of the update can overflow, and the clip is a packed norm. */
int mdy_schedule_valid(const mdy_schedule_t *schedule);

/** Sets rate_mult and rate_exponent of the step that comes, from the schedule; all samples of a batch share them. */
void mdy_sgd_schedule(mdy_t *m);

#ifdef __cplusplus
}
#endif

#endif
