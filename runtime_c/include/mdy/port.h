/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a board supplies: flash, a byte link, a counter. Everything else in the runtime is portable.
 *
 * Flash addresses are offsets into the sectors reserved for the two banks: the first one begins at 0.
 */
#ifndef MDY_PORT_H
#define MDY_PORT_H

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

extern const mdy_flash_geometry_t mdy_port_flash;

/** Copies n bytes at `address` to dst. Errors: MDY_FLASH (torn unit, bus error), MDY_ARGUMENT. */
mdy_status_t mdy_port_flash_read(uint32_t address, void *dst, uint32_t n);

/** Sets the sector that starts at `address` to 0xFF. Errors: MDY_FLASH, MDY_ARGUMENT. */
mdy_status_t mdy_port_flash_erase(uint32_t address);

/** Programs n bytes (a multiple of unit_bytes, aligned to it). Errors: MDY_FLASH, MDY_ARGUMENT. */
mdy_status_t mdy_port_flash_program(uint32_t address, const void *src, uint32_t n);

/** The memory-mapped view of the reserved space; kernels read candidate weights through it. */
const uint8_t *mdy_port_flash_map(void);

/** Reads 1 to n bytes from the link, waiting for the first. Returns the count, or MDY_LINK when closed. */
int32_t mdy_port_link_read(uint8_t *dst, uint32_t n);

/** Writes n bytes to the link. Errors: MDY_LINK. */
mdy_status_t mdy_port_link_write(const uint8_t *src, uint32_t n);

/**
 * Fills n bytes with random numbers that nobody can foresee; only images with a link key ask for them. A port without
 * such a source returns MDY_STATE: the requests that the key guards are then refused. Errors: MDY_STATE.
 */
mdy_status_t mdy_port_random(uint8_t *dst, uint32_t n);

/** A free-running 32-bit counter; its unit is `mdy_port_instructions_per_tick` guest instructions. */
uint32_t mdy_port_ticks(void);
extern const uint32_t mdy_port_instructions_per_tick; /* 0 where nothing counts instructions */

/** Fills the unused stack below the caller with `pattern`. */
void mdy_port_stack_paint(uint8_t pattern);

/** Deepest stack use since the paint, in bytes; 0 where the port cannot tell. */
uint32_t mdy_port_stack_mark(uint8_t pattern);

/** Bytes of .data + .bss of the image, arena and link buffers included; 0 where unknown. */
uint32_t mdy_port_static_bytes(void);

#ifdef __cplusplus
}
#endif

#endif
