/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What an application asks of the device around it: a sensor, a button for each class, a light.
 *
 * A project writes one of these and nothing else. line.c is one whose sensor and button are at the other end of the
 * board's serial line.
 */
#ifndef APP_HARDWARE_H
#define APP_HARDWARE_H

#include <stdint.h>

#include "mdy/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define APP_NO_LABEL UINT16_MAX

/** What a sample came to. */
typedef enum {
    APP_INFERRED = 0,
    APP_TRAINED = 1,   /* the prediction is that of before the step */
    APP_COMMITTED = 2, /* what was learned outlives a reset from now on */
    APP_REFUSED = 3    /* the label, or the commit: what was learned before stands */
} app_event_t;

/** Callbacks with their context. */
typedef struct {
    void *context;
    /**
     * Writes the next sample as int8 values, value = real / scale + zero of the generated header, to `input`, `bytes` of
     * them. Returns 1; 0: there is none yet; a negative number ends the application.
     */
    int (*sample)(void *context, int8_t *input, uint32_t bytes);
    /**
     * The class that the user names by the button which is down, or APP_NO_LABEL while none is. Asked once for each
     * sample. *age is 0 on entry: the sample just taken; a label that comes late sets how many samples ago its own was.
     */
    uint16_t (*label)(void *context, uint16_t *age);
    /** Shows an event, on a light or a display. `status` is MDY_OK but for APP_REFUSED. */
    void (*show)(void *context, app_event_t event, uint16_t prediction, mdy_status_t status);
} app_hardware_t;

/** What the project supplies. */
extern const app_hardware_t app_hardware;

#ifdef __cplusplus
}
#endif

#endif
