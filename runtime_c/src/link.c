/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/link.h"

#include "mdy/crc.h"

static mdy_status_t next_byte(const mdy_port_t *port, mdy_link_t *link, uint8_t *byte)
{
    if (link->chunk_at == link->chunk_bytes) {
        const int32_t n = port->receive(port->context, link->chunk, sizeof link->chunk);
        if (n <= 0) {
            return MDY_LINK;
        }
        link->chunk_at = 0;
        link->chunk_bytes = (uint32_t)n;
    }
    *byte = link->chunk[link->chunk_at++];
    return MDY_OK;
}

/*
 * Decodes up to the ending zero. MDY_FRAME: malformed or too long; *n bytes of it were decoded, at most what the body
 * holds.
 */
static mdy_status_t decode(const mdy_port_t *port, mdy_link_t *link, uint32_t *n)
{
    uint32_t length = 0;
    uint32_t left = 0; /* bytes before the next code byte */
    int zero_due = 0;  /* the last group stands for a zero behind it */
    int full = 0;
    for (;;) {
        uint8_t byte = 0;
        const mdy_status_t status = next_byte(port, link, &byte);
        if (status != MDY_OK) {
            return status;
        }
        if (byte == 0) {
            *n = length;
            return full || left != 0 ? MDY_FRAME : MDY_OK;
        }
        const int is_code = left == 0;
        if (!is_code || zero_due) {
            full |= length >= sizeof link->body;
            if (!full) {
                link->body[length++] = is_code ? 0 : byte;
            }
        }
        if (is_code) {
            left = byte - 1u;
            zero_due = byte != 0xff;
        } else {
            left--;
        }
    }
}

static uint32_t read_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

mdy_status_t mdy_link_receive(const mdy_port_t *port, mdy_link_t *link, uint32_t *n)
{
    for (;;) {
        uint32_t length = 0;
        mdy_status_t status = decode(port, link, &length);
        if (status == MDY_OK && length == 0) {
            continue; /* two zeros in a row */
        }
        if (status == MDY_OK &&
            (length <= 4 || mdy_crc32(0, link->body, length - 4) != read_word(link->body + length - 4))) {
            status = MDY_FRAME;
        }
        *n = status == MDY_OK ? length - 4 : length;
        return status;
    }
}

mdy_status_t mdy_link_send(const mdy_port_t *port, const uint8_t *body, uint32_t n)
{
    if (n > MDY_LINK_REPLY) {
        return MDY_ARGUMENT;
    }
    const uint32_t crc = mdy_crc32(0, body, n);
    uint8_t frame[MDY_LINK_REPLY + 4u + 3u]; /* a reply is shorter than 254: one code byte a zero */
    uint32_t code_at = 1;
    uint32_t length = 2;
    frame[0] = 0; /* ends what else was printed on this line */
    for (uint32_t i = 0; i < n + 4; i++) {
        const uint8_t byte = i < n ? body[i] : (uint8_t)(crc >> (8 * (i - n)));
        if (byte == 0) {
            frame[code_at] = (uint8_t)(length - code_at);
            code_at = length++;
        } else {
            frame[length++] = byte;
        }
    }
    frame[code_at] = (uint8_t)(length - code_at);
    frame[length++] = 0;
    return port->send(port->context, frame, length);
}
