/* SPDX-License-Identifier: Apache-2.0 */
/** What can be looked at of a model from outside: arrays, digests of what it did and holds, marks in painted memory. */
#ifndef MDY_READOUT_H
#define MDY_READOUT_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_READOUT_PART 64u /* bytes of flash at a time */

/** Arrays, as READ names them (SPEC.md, 4.4). */
enum {
    MDY_ARRAY_LOGITS,
    MDY_ARRAY_NORMS,
    MDY_ARRAY_SELECTION,
    MDY_ARRAY_EXPONENTS,
    MDY_ARRAY_STATE,
    MDY_ARRAY_WEIGHTS,
    MDY_ARRAY_OUTPUT,
    MDY_ARRAY_BANK,
    MDY_ARRAY_RESERVED
};

/**
 * Copies the current contents of an array from its byte `offset` on: at most *n, which then says how many. Errors:
 * MDY_ARGUMENT (no such array, or it ends before), those of the port's read.
 */
mdy_status_t mdy_readout(const mdy_t *m, uint32_t kind, uint32_t offset, uint8_t *bytes, uint32_t *n);

/** CRC-32 of the channels selected and of their deltas. */
uint32_t mdy_readout_deltas(const mdy_t *m);

/** CRC-32 of all bytes of the banks; parts that cannot be read count as zeros. MDY_READOUT_PART bytes of work: `part`. */
uint32_t mdy_readout_flash(const mdy_t *m, uint8_t *part);

/** One past the last byte of a region that no longer holds the paint. */
uint32_t mdy_readout_mark(const uint8_t *region, uint32_t bytes, uint8_t pattern);

#ifdef __cplusplus
}
#endif

#endif
