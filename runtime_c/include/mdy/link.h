/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Frames over a byte link: COBS, ended by a zero byte; inside: body, then its CRC-32. SPEC.md, section 4.
 * Damaged frames are dropped silently: the host repeats what was not answered.
 */
#ifndef MDY_LINK_H
#define MDY_LINK_H

#include <stdint.h>

#include "mdy/status.h"

#define MDY_LINK_BODY 528u /* largest body that is received */
#define MDY_LINK_REPLY 160u /* largest body that is sent */
#define MDY_LINK_CHUNK 256u

/** One end of the link; these buffers are all that the link takes. */
typedef struct {
    uint8_t body[MDY_LINK_BODY + 4u];
    uint8_t chunk[MDY_LINK_CHUNK]; /* bytes read ahead */
    uint32_t chunk_at, chunk_bytes;
    uint8_t reply[MDY_LINK_REPLY + 4u];
} mdy_link_t;

/** Waits for the next undamaged frame; *n is its body's length. Errors: MDY_LINK when closed. */
mdy_status_t mdy_link_receive(mdy_link_t *link, uint32_t *n);

/** Sends the first n bytes of link->reply as one frame. Errors: MDY_LINK, MDY_ARGUMENT. */
mdy_status_t mdy_link_send(mdy_link_t *link, uint32_t n);

#endif
