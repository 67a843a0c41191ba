/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/link.h"

#include "mdy/crc.h"
#include "mdy/port.h"

static mdy_status_t next_byte(mdy_link_t *link, uint8_t *byte)
{
    if (link->chunk_at == link->chunk_bytes) {
        const int32_t n = mdy_port_link_read(link->chunk, sizeof link->chunk);
        if (n <= 0) {
            return MDY_LINK;
        }
        link->chunk_at = 0;
        link->chunk_bytes = (uint32_t)n;
    }
    *byte = link->chunk[link->chunk_at++];
    return MDY_OK;
}

/* Decodes up to the ending zero. *n is 0 for an empty, overlong or malformed frame. */
static mdy_status_t decode(mdy_link_t *link, uint32_t *n)
{
    uint32_t length = 0;
    uint32_t left = 0; /* bytes before the next code byte */
    int zero_due = 0;  /* the last group stands for a zero behind it */
    int bad = 0;
    for (;;) {
        uint8_t byte = 0;
        const mdy_status_t status = next_byte(link, &byte);
        if (status != MDY_OK) {
            return status;
        }
        if (byte == 0) {
            *n = bad || left != 0 ? 0 : length;
            return MDY_OK;
        }
        if (left == 0) {
            if (zero_due) {
                bad |= length >= sizeof link->body;
                link->body[bad ? 0 : length] = 0;
                length += bad ? 0u : 1u;
            }
            left = byte - 1u;
            zero_due = byte != 0xff;
            continue;
        }
        bad |= length >= sizeof link->body;
        link->body[bad ? 0 : length] = byte;
        length += bad ? 0u : 1u;
        left--;
    }
}

static uint32_t read_word(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

mdy_status_t mdy_link_receive(mdy_link_t *link, uint32_t *n)
{
    for (;;) {
        uint32_t length = 0;
        const mdy_status_t status = decode(link, &length);
        if (status != MDY_OK) {
            return status;
        }
        if (length > 4 && mdy_crc32(0, link->body, length - 4) == read_word(link->body + length - 4)) {
            *n = length - 4;
            return MDY_OK;
        }
    }
}

mdy_status_t mdy_link_send(mdy_link_t *link, uint32_t n)
{
    if (n > MDY_LINK_REPLY) {
        return MDY_ARGUMENT;
    }
    const uint32_t crc = mdy_crc32(0, link->reply, n);
    for (uint32_t i = 0; i < 4; i++) {
        link->reply[n + i] = (uint8_t)(crc >> (8 * i));
    }
    uint8_t frame[MDY_LINK_REPLY + 4u + 3u]; /* a reply is shorter than 254: one code byte a zero */
    uint32_t code_at = 0;
    uint32_t length = 1;
    for (uint32_t i = 0; i < n + 4; i++) {
        if (link->reply[i] == 0) {
            frame[code_at] = (uint8_t)(length - code_at);
            code_at = length++;
        } else {
            frame[length++] = link->reply[i];
        }
    }
    frame[code_at] = (uint8_t)(length - code_at);
    frame[length++] = 0;
    return mdy_port_link_write(frame, length);
}
