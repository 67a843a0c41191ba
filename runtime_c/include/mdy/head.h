/* SPDX-License-Identifier: Apache-2.0 */
/** The last layer and its loss, in integers: softmax cross-entropy or squared error. */
#ifndef MDY_HEAD_H
#define MDY_HEAD_H

#include "mdy/mdy.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Draws the features that a sampled head trains in this epoch, and fetches their weights; lets held samples go. */
void mdy_head_lay_out(mdy_t *m);

/** Makes bytes [start, start + n) of a sampled head's next weights from those in use, which lie there; both even. */
void mdy_head_fill(const mdy_t *m, uint32_t start, uint32_t n, uint8_t *page);

/** Logits of the features. */
void mdy_run_head(mdy_t *m, const mdy_head_t *p);

/**
 * Loss, prediction and dL/dlogits of the logits that mdy_run_head left.
 *
 *   cross-entropy   loss in nats of the label; dlogits = softmax - ((1 - s) onehot + s / classes), Q15, s: the smoothing
 *   squared error   loss = mean of (logit - target)^2; dlogits = logit - target, saturated
 *
 * Shapes   logits, target (classes), Q16   dlogits (classes)
 * Errors   none; a label that is no class gives loss 0 and leaves dlogits alone, of whatever loss
 * Accuracy probabilities within 2^-14, loss within 2^-10 of the real softmax of the same logits
 */
void mdy_head_loss(mdy_t *m, uint16_t label, mdy_result_t *result);

/** Largest |dlogits|. */
uint32_t mdy_head_reference(const mdy_t *m);

/** dL/dfeatures, from the weights before the update. */
void mdy_head_backward(mdy_t *m);

/** SGD with stochastic rounding on the head's weights and biases; a sample of a batch is held until mdy_head_settle. */
void mdy_head_update(mdy_t *m);

/** Updates by the samples held, and lets them go. */
void mdy_head_settle(mdy_t *m);

#ifdef __cplusplus
}
#endif

#endif
