/* SPDX-License-Identifier: Apache-2.0 */
/**
 * SGD with stochastic rounding on the deltas of the selected channels. DESIGN.md, section 3.
 *
 * Where a layer's gradient is bounded, its weight gradients are made twice: the first time they are measured, the
 * second time applied at the rate that follows. Where an update is of several samples, they are made once: what each sample
 * gives is summed up in the records (int16 for each weight), and the sum is measured.
 */
#ifndef MDY_SGD_H
#define MDY_SGD_H

#include "mdy/update.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const mdy_optimizer_t mdy_sgd;

#ifdef __cplusplus
}
#endif

#endif
