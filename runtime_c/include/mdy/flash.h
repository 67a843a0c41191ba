/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Flash for the two banks of one model: what a board, or an application, supplies.
 *
 * Addresses are offsets into the sectors that are reserved for the banks: the first one begins at 0. Two models in one
 * image have a mdy_flash_t each, over sectors that they do not share.
 */
#ifndef MDY_FLASH_H
#define MDY_FLASH_H

#include <stddef.h>
#include <stdint.h>

#include "mdy/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Equal sectors that follow each other; a sector is what one erase clears. */
typedef struct {
    uint32_t count;
    uint32_t bytes; /* of each, a multiple of the program unit */
} mdy_flash_run_t;

/** The sectors that are reserved for the banks, in the order of their addresses, without gaps. */
typedef struct {
    const mdy_flash_run_t *runs;
    uint32_t run_count;
    uint32_t unit_bytes; /* program unit, 1 to 32, a power of two: programmed once per erase */
} mdy_flash_geometry_t;

/** The sectors and how to use them; every callback gets the context. */
typedef struct {
    const mdy_flash_geometry_t *geometry;
    void *context;
    /** Copies n bytes, which may be 0, at `address` to dst. Errors: MDY_FLASH (torn unit, bus error), MDY_ARGUMENT. */
    mdy_status_t (*read)(void *context, uint32_t address, void *dst, uint32_t n);
    /** Sets the sector that starts at `address` to 0xFF. Errors: MDY_FLASH, MDY_ARGUMENT. */
    mdy_status_t (*erase)(void *context, uint32_t address);
    /** Programs n bytes (a multiple of unit_bytes, aligned to it). Errors: MDY_FLASH, MDY_ARGUMENT. */
    mdy_status_t (*program)(void *context, uint32_t address, const void *src, uint32_t n);
    /** The memory-mapped view of the reserved sectors, aligned to 4; kernels read weights through it. */
    const uint8_t *(*map)(void *context);
} mdy_flash_t;

#ifdef __cplusplus
}
#endif

#endif
