/* SPDX-License-Identifier: Apache-2.0 */
/** SGD with stochastic rounding on the deltas of the selected channels. DESIGN.md, section 3. */
#ifndef MDY_SGD_H
#define MDY_SGD_H

#include "mdy/model.h"

struct mdy_update {
    mdy_t *m;
    const mdy_layer_t *layer;
    const mdy_selected_t *selected;
    const int8_t *weights;
    mdy_wacc_t *sums; /* group_out of one tap; or of every tap of every slot, when rows come one by one */
    uint8_t by_rows;
    uint32_t key;  /* of this step's and layer's random numbers */
    int exponent;  /* the sums carry 2^exponent */
};

/** Applies the sums of one tap, group_out of them. */
void mdy_update_tap(mdy_update_t *update, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums);

/** Sets rate_mult and rate_exponent of the step that comes, from the schedule. */
void mdy_sgd_schedule(mdy_t *m);

#endif
