/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Which input channels the next epoch trains. MeDyate, arXiv 2510.20979, algorithm 1.
 *
 * Channels are drawn one after the other without replacement, each with probability N / sum(N) over
 * the channels that are not yet taken and whose record still fits, until none fits.
 * The same draw stands in compiler/medyate/sample/policy.py.
 */
#ifndef MDY_SAMPLER_H
#define MDY_SAMPLER_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of m->norms for this model. */
uint32_t mdy_sampler_norm_bytes(const mdy_model_t *model);

/** Factory norms. */
void mdy_sampler_start(mdy_t *m);

/** Draws into m->selection by the model's policy. `epoch` counts from 0 and is part of the key. */
void mdy_sampler_draw(mdy_t *m, uint32_t epoch);

/** Writes the epoch's observed norms into N, if the policy asks for it; after the first epoch all others get the largest. */
void mdy_sampler_observe(mdy_t *m);

/** Whether norms and selection are such as the functions above leave: eligible channels, within the budget. */
int mdy_sampler_valid(const mdy_t *m);

/** Lays the epoch region out for m->selection: records zeroed, channels written, depth known. */
void mdy_sampler_lay_out(mdy_t *m);

#ifdef __cplusplus
}
#endif

#endif
