/* SPDX-License-Identifier: Apache-2.0 */
/** Answers a host over the link: samples in, losses and predictions out. Commands in SPEC.md, section 4. */
#ifndef MDY_SERVE_H
#define MDY_SERVE_H

#include "mdy/link.h"
#include "mdy/mdy.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_PROTOCOL 9

/**
 * Who may end the program, replace the selection, forget generations, or read what was learned (docs/SECURITY.md):
 * with MDY_LINK_OPEN anyone at the link; with MDY_LINK_KEY who has the key, `mdy_link_key`; else nobody.
 */
#ifndef MDY_LINK_OPEN
#define MDY_LINK_OPEN 0
#endif
#ifndef MDY_LINK_KEY
#define MDY_LINK_KEY 0
#endif
#if MDY_LINK_OPEN && MDY_LINK_KEY
#error "a link that is open needs no key"
#endif

#define MDY_LINK_NONCE 16u /* bytes of a challenge */
#define MDY_LINK_TAG 16u   /* bytes of the HMAC-SHA-256 that follow a guarded request */

#if MDY_LINK_KEY
/** The key, 16 to 64 bytes, in the image: whoever can read the image has it. */
extern const uint8_t mdy_link_key[];
extern const uint32_t mdy_link_key_bytes;
#endif

/** A served model: the first three are the caller's, the rest is filled here. */
typedef struct {
    const mdy_port_t *port;
    const mdy_model_t *model;
    const mdy_memory_t *memory;
    mdy_t net;
    mdy_link_t link;
    uint32_t input_bytes; /* bytes of the sample that have arrived */
    const uint8_t *piece; /* of a sample that comes by rows: what the step has not taken yet */
    uint32_t piece_bytes;
    uint32_t waited;    /* ticks spent on the link in the middle of a step */
    uint32_t kept;      /* bytes of a request that ended a step and is still to be carried out; 0: none */
    uint32_t answered;  /* length of the reply kept for a repeated request; 0: none */
    uint16_t session;   /* number that the last HELLO gave; 0: none since the start */
    uint8_t sequence;   /* of the kept reply */
    uint8_t unanswered; /* the request at hand has no reply yet */
#if MDY_LINK_KEY
    uint8_t nonce[MDY_LINK_NONCE]; /* of the last challenge */
    uint8_t challenged;            /* it is good for one request */
#endif
    uint8_t ready;   /* mdy_init succeeded */
    uint8_t pattern; /* the regions and the stack were painted with it */
} mdy_server_t;

/**
 * Serves until the host says EXIT or the link closes. Host messages are hostile input: lengths,
 * offsets and labels are checked, a request that does not fit the state is refused with its status.
 * Requests carry a sequence number; a repeated one is answered again, not carried out again.
 */
mdy_status_t mdy_serve(mdy_server_t *server);

#ifdef __cplusplus
}
#endif

#endif
