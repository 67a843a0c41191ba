/* SPDX-License-Identifier: Apache-2.0 */
/**
 * When an application that has no host writes what it learned to flash.
 *
 * A commit takes up to seconds, in which most chips stand still: a press of the button would be lost. So it never
 * begins while a button is down, and in front of it the last batch is whole unless the user has gone.
 */
#ifndef APP_COMMITS_H
#define APP_COMMITS_H

#include "hardware.h"
#include "mdy/mdy.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The first two are the caller's, the rest starts at 0. */
typedef struct {
    uint32_t steps;   /* commit when the button is up after so many training steps; */
    uint32_t idle;    /* of fewer steps, when it has been up for so many samples */
    uint32_t up;      /* samples since the button was down */
    uint32_t refused; /* steps of the epoch when the flash refused: it is not asked again at once */
} app_commits_t;

/** Starting values: a rate that suits most networks and a bound for each step; no end of the training is known. */
mdy_config_t app_config(const mdy_flash_t *flash);

/**
 * Counts a sample, and commits if it is time. Returns what mdy_end_epoch does that ends the training: MDY_DAMAGED,
 * after which mdy_init loads what can be read. Another refusal is shown; the next commit is due after as many more steps,
 * or when the user has gone after at least one, so that a worn sector is not worn further.
 */
mdy_status_t app_commit(app_commits_t *commits, mdy_t *net, const app_hardware_t *hardware, int is_down);

#ifdef __cplusplus
}
#endif

#endif
