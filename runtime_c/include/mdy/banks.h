/* SPDX-License-Identifier: Apache-2.0 */
/** Where the two banks lie among the reserved sectors. The twin of this rule is compiler/medyate/plan/banks.py. */
#ifndef MDY_BANKS_H
#define MDY_BANKS_H

#include "mdy/flash.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Whole sectors that hold one generation; no other bank has a part of them. */
typedef struct {
    uint32_t address, bytes;
} mdy_bank_t;

/** Bytes of all reserved sectors. */
uint32_t mdy_flash_bytes(const mdy_flash_geometry_t *flash);

/** Bytes of the sector that begins at `address`, 0 when none does; *index: how many lie below. */
uint32_t mdy_flash_sector(const mdy_flash_geometry_t *flash, uint32_t address, uint32_t *index);

/**
 * Bank 0 takes the first sectors that hold a generation of so many bytes, bank 1 the next ones.
 * Errors: MDY_FLASH (the sectors do not suffice).
 */
mdy_status_t mdy_banks_place(const mdy_flash_geometry_t *flash, uint32_t generation_bytes, mdy_bank_t banks[2]);

#ifdef __cplusplus
}
#endif

#endif
