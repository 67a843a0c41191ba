/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Frames over a byte link: COBS between zero bytes; inside: body, then its CRC-32. SPEC.md, section 4.
 * What lies between two zeros and is no frame (text, noise, the rest of a damaged frame) costs nothing but itself.
 */
#ifndef MDY_LINK_H
#define MDY_LINK_H

#include "mdy/port.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_LINK_BODY 530u  /* largest body that is received */
#define MDY_LINK_REPLY 160u /* largest body that is sent */
#define MDY_LINK_CHUNK 256u

/** One end of the link; these buffers are all that the link takes. */
typedef struct {
    uint8_t body[MDY_LINK_BODY + 4u];
    uint8_t chunk[MDY_LINK_CHUNK]; /* bytes read ahead */
    uint32_t chunk_at, chunk_bytes;
    uint8_t reply[MDY_LINK_REPLY];
} mdy_link_t;

/**
 * Waits for the next frame; *n is its body's length. Errors: MDY_LINK when closed; MDY_FRAME: what came is damaged, and
 * *n bytes of it could be decoded, up to MDY_LINK_BODY + 4 of them.
 */
mdy_status_t mdy_link_receive(const mdy_port_t *port, mdy_link_t *link, uint32_t *n);

/** Sends a body of n bytes as one frame. Errors: MDY_LINK, MDY_ARGUMENT (above MDY_LINK_REPLY). */
mdy_status_t mdy_link_send(const mdy_port_t *port, const uint8_t *body, uint32_t n);

#ifdef __cplusplus
}
#endif

#endif
