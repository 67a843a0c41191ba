/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How gradients change the selected channels' weights and the biases: what an optimiser supplies, and what it is given.
 *
 * An optimiser is one source file with a mdy_optimizer_t, named by the model. Weight gradients are kept nowhere: a layer's
 * backward pass makes the sums of as many window taps as there is room for at a time, and unless that is all of them makes
 * them again as often as the optimiser asks. What an optimiser keeps of a channel, a number of bytes for each of its
 * weights, is the last part of its record.
 */
#ifndef MDY_UPDATE_H
#define MDY_UPDATE_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** One update of a layer. */
typedef struct mdy_update mdy_update_t;
struct mdy_update {
    mdy_t *m;
    const mdy_layer_t *layer;
    const mdy_selected_t *selected;
    const int8_t *weights; /* in force, without the deltas */
    const mdy_gradient_t *dy;
    /**
     * Goes over the gradients once: calls the optimiser's `tap` for every tap of every selected channel.
     */
    void (*pass)(mdy_update_t *update);
    mdy_wacc_t *sums;    /* (slots, taps, group_out) of the gradients, or of as many as there is room for */
    uint32_t sums_bytes; /* that room; at least one tap's */
    mdy_workspace_t workspace;
    uint8_t summed;     /* the sums are those of every tap of every slot, and made */
    uint8_t mode;       /* the optimiser's own: what `tap` is to do */
    uint32_t key;       /* of this step's and layer's random numbers */
    int exponent;       /* the sums carry 2^exponent */
    uint64_t squares;   /* the optimiser's own: of what it measured */
    uint32_t rate_mult; /* of this step; of a batch's end, of the whole batch */
    int32_t rate_exponent;
};

struct mdy_optimizer {
    /** Takes a sample's gradients of a layer: calls update->pass as often as it wants to see them. */
    void (*layer)(mdy_update_t *update);
    /** One tap of one selected channel: its group_out sums. Adds their squares to the record once in a sample. */
    void (*tap)(mdy_update_t *update, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums);
    /** The biases of a layer, out.c of them, from update->sums; in batches, too, after every sample, at its share. */
    void (*biases)(mdy_update_t *update, const mdy_biases_t *p, int32_t *bias);
    /** The end of a batch of more than one sample, for each candidate layer. */
    void (*batch)(mdy_update_t *update);
};

#ifdef __cplusplus
}
#endif

#endif
