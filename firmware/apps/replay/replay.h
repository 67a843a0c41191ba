/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Replay: keeps some samples in RAM, so that a label may come after its sample has passed, and old classes are trained
 * again beside new ones instead of being forgotten. No host.
 */
#ifndef APP_REPLAY_H
#define APP_REPLAY_H

#include "commits.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A kept sample. */
typedef struct {
    uint32_t number; /* of the sample, from 1; 0: the slot is empty */
    uint32_t turn;   /* of its last training, in training steps; 0: none yet */
    uint16_t label;  /* APP_NO_LABEL: it has none yet */
} replay_slot_t;

/** The first group is the caller's. */
typedef struct {
    const app_hardware_t *hardware;
    app_commits_t commits;
    replay_slot_t *slots; /* `count` of them, cleared */
    int8_t *values;       /* `count` samples, one behind the other */
    uint16_t count;
    uint16_t waiting;    /* slots, less than `count`, that the newest samples without a label may take */
    uint16_t rehearsals; /* steps on kept samples beside the one on a sample that has just got its label */

    mdy_t net;
    mdy_result_t result; /* of the last sample */
    uint32_t number;     /* of the last sample */
    uint32_t turn;       /* training steps so far */
    uint16_t last;       /* class that was rehearsed last */
} replay_t;

/**
 * Goes on from what the flash holds, or starts from the factory; kept samples stay. Errors: those of mdy_init,
 * MDY_ARGUMENT also for a model whose samples come by rows.
 */
mdy_status_t replay_start(replay_t *replay, const mdy_model_t *model, const mdy_memory_t *memory,
                          const mdy_config_t *config);

/**
 * One turn of the main loop: takes and keeps a sample if there is one, infers, trains on a sample whose label has come
 * and rehearses, commits if it is time. Errors: MDY_LINK (the sensor ended), MDY_DAMAGED (replay_start goes on from what
 * can be read), MDY_ABORTED.
 */
mdy_status_t replay_turn(replay_t *replay);

#ifdef __cplusplus
}
#endif

#endif
