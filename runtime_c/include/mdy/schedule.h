/* SPDX-License-Identifier: Apache-2.0 */
/** The learning rate of each step: warm-up, constant or cosine decay. SPEC.md, section 1.7. */
#ifndef MDY_SCHEDULE_H
#define MDY_SCHEDULE_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Whether no product or shift of an update can overflow, and the clip is a packed norm. */
int mdy_schedule_valid(const mdy_schedule_t *schedule);

/** Sets rate_mult and rate_exponent of the step that comes; all samples of a batch share them. */
void mdy_schedule_step(mdy_t *m);

#ifdef __cplusplus
}
#endif

#endif
