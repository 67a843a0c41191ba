/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a board supplies: flash, a byte link, a counter. Everything else in the runtime is portable.
 *
 * An application that trains without a host needs the flash alone (mdy_config_t); the server (serve.h) needs all of it.
 */
#ifndef MDY_PORT_H
#define MDY_PORT_H

#include "mdy/flash.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Callbacks with their context; those that may be NULL say so. */
typedef struct {
    const mdy_flash_t *flash; /* NULL: there is none, and weights are in RAM */
    void *context;
    /** Reads 1 to n bytes from the link, waiting for the first. Returns the count, or MDY_LINK when closed. */
    int32_t (*receive)(void *context, uint8_t *dst, uint32_t n);
    /** Writes n bytes to the link. Errors: MDY_LINK. */
    mdy_status_t (*send)(void *context, const uint8_t *src, uint32_t n);
    /**
     * Fills n bytes with random numbers that nobody can foresee. NULL, or MDY_STATE: there is no such source, and the
     * requests that a link key guards are refused.
     */
    mdy_status_t (*random)(void *context, uint8_t *dst, uint32_t n);
    /** A free-running 32-bit counter. NULL: steps are not timed. */
    uint32_t (*ticks)(void *context);
    uint32_t instructions_per_tick; /* the counter's unit, in guest instructions; 0: it counts something else */
    uint32_t ticks_per_second;      /* the counter's rate; 0: it does not count time */
    /** Fills the unused stack below the caller with `pattern`. NULL where stack_mark is. */
    void (*stack_paint)(void *context, uint8_t pattern);
    /** Deepest stack use since the paint, in bytes. NULL: it cannot be told. */
    uint32_t (*stack_mark)(void *context, uint8_t pattern);
    /** Bytes of .data + .bss of the image, arena and link buffers included. NULL: unknown. */
    uint32_t (*static_bytes)(void *context);
} mdy_port_t;

/** The port that the board's folder, or the host's, defines. */
extern const mdy_port_t mdy_port;

#ifdef __cplusplus
}
#endif

#endif
