/* SPDX-License-Identifier: Apache-2.0 */
/** Learn by button: infers each sample, and trains while the user holds a button that names its class. No host. */
#ifndef APP_LEARN_H
#define APP_LEARN_H

#include "commits.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The first two are the caller's. */
typedef struct {
    const app_hardware_t *hardware;
    app_commits_t commits;
    mdy_t net;
    mdy_result_t result; /* of the last sample */
} learn_t;

/** Goes on from what the flash holds, or starts from the factory. Errors: those of mdy_init. */
mdy_status_t learn_start(learn_t *learn, const mdy_model_t *model, const mdy_memory_t *memory,
                         const mdy_config_t *config);

/**
 * One turn of the main loop: takes a sample if there is one, infers or trains, commits if it is time.
 * Errors: MDY_LINK (the sensor ended), MDY_DAMAGED (learn_start goes on from what can be read), MDY_ABORTED.
 */
mdy_status_t learn_turn(learn_t *learn);

#ifdef __cplusplus
}
#endif

#endif
