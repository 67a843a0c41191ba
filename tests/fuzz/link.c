/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests whose fields are the input's, in frames that are whole (or not): mdy_serve answers until the link closes.
 * A device with two generations in flash; the replies go nowhere.
 */
#include "machine.h"
#include "mdy/serve.h"

enum { C_BEGIN = 2, C_DATA = 3, C_TRAIN = 4, C_INFER = 5, BEGIN_BYTES = 30, RAW = 0xff, SAMPLE = 0xfe };

static input_t in;
static uint8_t line[2048 + 2 * MDY_MODEL_INPUT_BYTES]; /* frames that wait to be read */
static uint32_t line_at, line_end;
static uint8_t sequence;
static int is_begun;

static uint32_t no_ticks(void *context)
{
    (void)context;
    return 0;
}

static void no_paint(void *context, uint8_t pattern)
{
    (void)context;
    (void)pattern;
}

static uint32_t mark_stack(void *context, uint8_t pattern)
{
    (void)context;
    return pattern;
}

static mdy_status_t send(void *context, const uint8_t *src, uint32_t n)
{
    static volatile uint8_t sink;
    (void)context;
    for (uint32_t i = 0; i < n; i++) {
        sink = (uint8_t)(sink ^ src[i]); /* reads all of it */
    }
    return MDY_OK;
}

/* COBS(body, CRC) 00 */
static void frame(const uint8_t *body, uint32_t n)
{
    uint8_t whole[MDY_LINK_BODY + 64];
    memcpy(whole, body, n);
    const uint32_t crc = mdy_crc32(0, body, n);
    for (uint32_t i = 0; i < 4; i++) {
        whole[n + i] = (uint8_t)(crc >> (8 * i));
    }
    uint32_t code = line_end++;
    for (uint32_t i = 0; i < n + 4; i++) {
        if (whole[i] != 0) {
            line[line_end++] = whole[i];
        }
        if (whole[i] == 0 || line_end - code == 255) {
            line[code] = (uint8_t)(line_end - code);
            code = line_end++;
        }
    }
    line[code] = (uint8_t)(line_end - code);
    line[line_end++] = 0;
}

static void request(uint32_t command, const uint8_t *fields, uint32_t n)
{
    uint8_t body[MDY_LINK_BODY + 16] = {MDY_PROTOCOL, ++sequence, (uint8_t)command, 0};
    memcpy(body + 4, fields, n);
    frame(body, n + 4);
}

/* A whole sample, in pieces that fit. */
static void sample(uint32_t command)
{
    uint8_t fields[4 + 256];
    const uint8_t label[2] = {0, 0};
    const int by_rows = mdy_by_rows(&mdy_model);
    if (by_rows) {
        request(command, label, 2);
    }
    for (uint32_t offset = 0; offset < MDY_MODEL_INPUT_BYTES; offset += 256) {
        const uint32_t part = MDY_MODEL_INPUT_BYTES - offset < 256 ? MDY_MODEL_INPUT_BYTES - offset : 256;
        for (uint32_t i = 0; i < part + 4; i++) {
            fields[i] = (uint8_t)(i < 4 ? offset >> (8 * i) : mdy_rng(offset, i));
        }
        request(C_DATA, fields, part + 4);
    }
    if (!by_rows) {
        request(command, label, 2);
    }
}

/* Puts the next request on the line; 0 at the end of the input. */
static int next(void)
{
    uint8_t fields[256] = {0};
    line_at = line_end = 0;
    if (!is_begun) { /* what most requests need; the input may begin anew */
        const uint8_t schedule[BEGIN_BYTES] = {5, 0, 0, 0, 0x20, 0x4e, 0, 0, 0xf0, 0xff, 0xff, 0xff};
        is_begun = 1;
        request(C_BEGIN, schedule, sizeof schedule);
        return 1;
    }
    if (in.left == 0) {
        return 0;
    }
    const uint32_t command = take(&in, 1);
    const uint32_t n = take(&in, 1);
    if (command == SAMPLE) {
        sample(n % 2 == 0 ? C_TRAIN : C_INFER);
        return 1;
    }
    for (uint32_t i = 0; i < n && in.left > 0; i++) {
        fields[i] = (uint8_t)take(&in, 1);
    }
    if (command == RAW) {
        memcpy(line, fields, n + 1);
        line_end = n + 1;
    } else {
        request(command % 24, fields, n);
    }
    return 1;
}

static int32_t receive(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    if (line_at == line_end && !next()) {
        return (int32_t)MDY_LINK;
    }
    const uint32_t part = line_end - line_at < n ? line_end - line_at : n;
    memcpy(dst, line + line_at, part);
    line_at += part;
    return (int32_t)part;
}

static const mdy_port_t port = {
    .flash = &flash,
    .receive = receive,
    .send = send,
    .ticks = no_ticks,
    .stack_paint = no_paint,
    .stack_mark = mark_stack,
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    train_once();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mdy_server_t server;
    const mdy_server_t begun = {.port = &port, .model = &mdy_model, .memory = &memory};
    memcpy(image, trained, sizeof image);
    mdy_flash_emu_reboot(&emu);
    in = (input_t){data, size};
    line_at = line_end = 0;
    is_begun = 0;
    server = begun;
    (void)mdy_serve(&server);
    return 0;
}
