/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a generation is made of, as bytes: a header, then the payload, which is a body of settings, the saved part of the
 * state region and the weights. Format in SPEC.md, section 5; store.h puts it into flash.
 */
#ifndef MDY_GENERATION_H
#define MDY_GENERATION_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_STORE_FORMAT 5
#define MDY_STORE_MAGIC 0x4259444du /* "MDYB" */
#define MDY_STORE_HEADER_BYTES 64u
#define MDY_STORE_BODY_BYTES 44u /* as this runtime writes it; it reads other lengths, too */
#define MDY_STORE_WORDS (MDY_STORE_HEADER_BYTES / 4u)
#define MDY_STORE_PAGE 256u

/** Words of the header. 0 to 6 and 15 mean the same in every format from 4 on; 8 to 12 are 0. */
enum {
    MDY_H_MAGIC,
    MDY_H_FORMAT,
    MDY_H_GENERATION,
    MDY_H_DIGEST,
    MDY_H_PAYLOAD_BYTES,
    MDY_H_PAYLOAD_CRC,
    MDY_H_EPOCHS,
    MDY_H_BODY_BYTES,
    MDY_H_ZERO,
    MDY_H_ERASES = 13,
    MDY_H_OTHER_ERASES,
    MDY_H_CRC
};

/** The one buffer of an operation: what is made, and what is read back of it. */
typedef union {
    uint32_t words[MDY_STORE_PAGE / 4u];
    uint8_t bytes[MDY_STORE_PAGE];
} mdy_page_t;

/** Bytes of a payload behind its body. */
uint32_t mdy_generation_bytes(const mdy_t *m);

/**
 * Looks at a body, in a page whose other bytes are 0. MDY_BANK_USABLE, _DAMAGED (it has an impossible value), or _FORMAT
 * (it has words that this runtime does not know).
 */
uint8_t mdy_generation_body(const mdy_page_t *page);

/** Takes over what a usable body says of the training. */
void mdy_generation_take_body(mdy_t *m, const uint32_t *body);

/** The body of the next generation: MDY_STORE_BODY_BYTES. */
void mdy_generation_fill_body(const mdy_t *m, uint32_t *body);

/** Whether a state is one that this runtime can have left; of head, exponents and weights, kernels take any bits. */
int mdy_generation_state_valid(const mdy_t *m);

/**
 * Makes bytes [start, start + n) of what follows the next payload's body; n <= MDY_STORE_PAGE. Where there is a generation
 * in use, `page` holds its bytes already.
 */
void mdy_generation_fill(const mdy_t *m, uint32_t start, uint32_t n, uint8_t *page);

/** Adds the deltas to the weights in RAM. */
void mdy_generation_merge(mdy_t *m);

#ifdef __cplusplus
}
#endif

#endif
