/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/serve.h"

#include <string.h>

#include "mdy/crc.h"
#include "mdy/port.h"
#include "mdy/readout.h"
#include "mdy/sha256.h"

enum {
    C_NONE = 0, /* of the answer to a damaged frame */
    C_HELLO = 1,
    C_BEGIN = 2,
    C_DATA = 3,
    C_TRAIN = 4,
    C_INFER = 5,
    C_COMMIT = 6,
    C_READ = 7,
    C_DIGESTS = 8,
    C_MARKS = 9,
    C_FORCE = 10,
    C_ROLL_BACK = 11,
    C_RESET = 12,
    C_EXIT = 13,
    C_TARGET = 14,
    C_CHALLENGE = 15
};

/* A request or reply is: protocol, sequence, command, status (of a request 255), u16 session, then its fields. */
#define HEAD 6u
#define REQUEST 0xffu

typedef struct {
    const uint8_t *at;
    uint32_t left;
    int bad; /* a field was missing */
} reader_t;

static uint32_t get(reader_t *r, uint32_t bytes)
{
    uint32_t value = 0;
    if (r->left < bytes) {
        r->bad = 1;
        return 0;
    }
    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint32_t)r->at[i] << (8 * i);
    }
    r->at += bytes;
    r->left -= bytes;
    return value;
}

static void put(mdy_server_t *s, uint32_t *n, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++) {
        s->link.reply[(*n)++] = (uint8_t)(value >> (8 * i));
    }
}

/* Where the training stands, with what settings (after a resume, the generation's), and what the banks held. */
static void put_position(mdy_server_t *s, uint32_t *n)
{
    put(s, n, s->net.generation);
    put(s, n, s->net.epochs);
    put(s, n, s->net.steps);
    put(s, n, s->net.epoch_step);
    put(s, n, s->net.seed);
    put(s, n, s->net.schedule.rate_mult);
    put(s, n, (uint32_t)s->net.schedule.rate_exponent);
    put(s, n, s->net.schedule.cosine);
    put(s, n, s->net.schedule.warmup_steps);
    put(s, n, s->net.schedule.total_steps);
    put(s, n, s->net.schedule.clip);
    put(s, n,
        (uint32_t)s->net.head_only | (uint32_t)s->net.flip << 1 | (uint32_t)s->net.shift << 3 |
            (uint32_t)s->net.smoothing << 8);
    put(s, n, s->net.bank);
    for (uint32_t bank = 0; bank < 2; bank++) {
        put(s, n, s->net.found[bank].state);
        put(s, n, s->net.found[bank].generation);
        put(s, n, s->net.found[bank].origin);
        put(s, n, s->net.erases[bank]);
    }
    put(s, n, s->net.fault);
}

/* Of the sectors that the port reserves for the banks. */
static uint32_t reserved_bytes(const mdy_port_t *port)
{
    return port->flash == NULL ? 0 : mdy_flash_bytes(port->flash->geometry);
}

static uint32_t ticks(const mdy_port_t *port)
{
    return port->ticks == NULL ? 0 : port->ticks(port->context);
}

static mdy_status_t hello(mdy_server_t *s, uint32_t *n)
{
    const mdy_model_t *model = s->model;
    put(s, n, MDY_ABI);
    put(s, n, model->digest);
    put(s, n, mdy_tensor_bytes(&model->input));
    put(s, n, mdy_classes(model));
    put(s, n, model->channel_count);
    put(s, n, model->candidate_count);
    put(s, n, s->port->instructions_per_tick);
    put(s, n, MDY_GRAD_BITS);
    put(s, n, reserved_bytes(s->port));
    put(s, n, model->head == NULL ? 0 : model->head->loss);
    put(s, n, (uint32_t)mdy_by_rows(model));
    put(s, n, MDY_LINK_OPEN ? 1 : MDY_LINK_KEY ? 2 : 0);
    put(s, n, s->port->ticks_per_second);
    return MDY_OK;
}

/* Whether a request ends the program, changes or forgets what is trained, or gives it away. */
static int is_guarded(uint32_t command, const reader_t *r)
{
    const uint32_t kind = r->left > 0 ? r->at[0] : MDY_ARRAY_STATE;
    switch (command) {
    case C_FORCE:
    case C_ROLL_BACK:
    case C_RESET:
    case C_EXIT:
        return 1;
    case C_READ:
        return kind == MDY_ARRAY_STATE || kind == MDY_ARRAY_WEIGHTS || kind == MDY_ARRAY_BANK ||
               kind == MDY_ARRAY_RESERVED;
    default:
        return 0;
    }
}

#if MDY_LINK_KEY
static mdy_status_t challenge(mdy_server_t *s, uint32_t *n)
{
    const mdy_port_t *port = s->port;
    const mdy_status_t status = port->random == NULL ? MDY_STATE
                                                     : port->random(port->context, s->nonce, MDY_LINK_NONCE);
    s->challenged = status == MDY_OK;
    if (s->challenged) {
        memcpy(s->link.reply + *n, s->nonce, MDY_LINK_NONCE);
        *n += MDY_LINK_NONCE;
    }
    return status;
}

/* Takes the tag off the request's end: it must be that of this request under the last challenge, which it uses up. */
static mdy_status_t permit(mdy_server_t *s, reader_t *r)
{
    mdy_sha256_t hash;
    uint8_t digest[MDY_SHA256_BYTES];
    uint32_t different = !s->challenged;
    s->challenged = 0;
    if (r->left < MDY_LINK_TAG) {
        return MDY_DENIED;
    }
    r->left -= MDY_LINK_TAG;
    mdy_hmac_start(&hash, mdy_link_key, mdy_link_key_bytes);
    mdy_sha256_feed(&hash, s->nonce, MDY_LINK_NONCE);
    mdy_sha256_feed(&hash, s->link.body, HEAD + r->left);
    mdy_hmac_end(&hash, mdy_link_key, mdy_link_key_bytes, digest);
    for (uint32_t i = 0; i < MDY_LINK_TAG; i++) { /* all of it, whatever differs: time tells nothing */
        different |= (uint32_t)(digest[i] ^ r->at[r->left + i]);
    }
    return different == 0 ? MDY_OK : MDY_DENIED;
}
#else
static mdy_status_t challenge(mdy_server_t *s, uint32_t *n)
{
    (void)s;
    (void)n;
    return MDY_ARGUMENT;
}

static mdy_status_t permit(mdy_server_t *s, reader_t *r)
{
    (void)s;
    (void)r;
    return MDY_LINK_OPEN ? MDY_OK : MDY_DENIED;
}
#endif

static int load_row(void *context, uint16_t row, int8_t *values);

static mdy_status_t begin(mdy_server_t *s, reader_t *r, uint32_t *n)
{
    mdy_config_t config = {0};
    config.seed = get(r, 4);
    config.schedule.rate_mult = get(r, 4);
    config.schedule.rate_exponent = (int32_t)get(r, 4);
    config.schedule.cosine = get(r, 4);
    config.schedule.warmup_steps = get(r, 4);
    config.schedule.total_steps = get(r, 4);
    config.schedule.clip = (uint16_t)get(r, 2);
    const uint32_t flags = get(r, 1);
    const uint8_t pattern = (uint8_t)get(r, 1);
    config.shift = (uint8_t)get(r, 1);
    config.smoothing = (uint8_t)get(r, 1);
    if (r->bad) {
        return MDY_FRAME;
    }
    config.head_only = flags & 1u;
    config.flip = flags >> 1 & 1u;
    config.fresh = flags >> 2 & 1u;
    config.flash = s->port->flash;
    config.load = load_row;
    config.load_context = s;
    s->ready = 0;
    s->input_bytes = 0;
    s->pattern = pattern;
    if (s->port->stack_paint != NULL) {
        s->port->stack_paint(s->port->context, s->pattern);
    }
    memset(s->memory->planned.at, s->pattern, s->memory->planned.bytes);
    memset(s->memory->epoch.at, s->pattern, s->memory->epoch.bytes);
    memset(s->memory->state.at, s->pattern, s->memory->state.bytes);
    const mdy_status_t status = mdy_init(&s->net, s->model, s->memory, &config);
    s->ready = status == MDY_OK;
    put_position(s, n);
    return status;
}

static mdy_status_t data(mdy_server_t *s, reader_t *r, uint32_t *n)
{
    const uint32_t offset = get(r, 4);
    mdy_status_t status = MDY_ARGUMENT; /* pieces come in order; a repeated one was answered already */
    if (mdy_by_rows(s->model)) {
        return MDY_STATE; /* outside of a step */
    }
    s->input_bytes = offset == 0 ? 0 : s->input_bytes; /* the first piece starts the sample anew */
    if (!r->bad && offset == s->input_bytes && r->left <= mdy_tensor_bytes(&s->model->input) - s->input_bytes) {
        memcpy(mdy_input(&s->net) + offset, r->at, r->left);
        s->input_bytes += r->left;
        status = MDY_OK;
    }
    put(s, n, s->input_bytes); /* where the host goes on */
    return status;
}

/* Targets of the next step: any part of them, as little-endian words in Q16. */
static mdy_status_t target(mdy_server_t *s, reader_t *r)
{
    int32_t *targets = mdy_target(&s->net);
    const uint32_t first = get(r, 4);
    const uint32_t words = r->left / 4u;
    const uint32_t outputs = mdy_classes(s->model);
    if (r->bad || targets == NULL || r->left % 4u != 0 || first > outputs || words > outputs - first) {
        return MDY_ARGUMENT;
    }
    for (uint32_t i = 0; i < words; i++) {
        targets[first + i] = (int32_t)get(r, 4);
    }
    return MDY_OK;
}

/* The reply of a request is complete: n bytes. */
static mdy_status_t answer(mdy_server_t *s, mdy_status_t status, uint32_t n)
{
    s->link.reply[3] = (uint8_t)(-(int)status);
    s->answered = n;
    return mdy_link_send(s->port, s->link.reply, n);
}

/*
 * Answers the frame in the body, which is no request of the open session: what was done stays as it is, the kept reply
 * too. The session's number is the frame's own, so that its sender takes the answer; the open one follows.
 */
static mdy_status_t refuse(const mdy_server_t *s, uint32_t command, mdy_status_t status)
{
    const uint8_t *body = s->link.body;
    const uint8_t reply[HEAD + 2u] = {
        MDY_PROTOCOL, body[1], (uint8_t)command,    (uint8_t)(-(int)status),
        body[4],      body[5], (uint8_t)s->session, (uint8_t)(s->session >> 8),
    };
    return mdy_link_send(s->port, reply, sizeof reply);
}

/* The number of the session that the frame in the body says it is of. */
static uint32_t session_of(const uint8_t *body)
{
    return (uint32_t)body[4] | (uint32_t)body[5] << 8;
}

/*
 * Waits for a request of this session that is new; one that was answered already is answered again. Its reply is begun.
 * What is no request (an echo, another's frame) is dropped; a damaged frame that looks like one of this session is
 * asked for again.
 */
static mdy_status_t next_request(mdy_server_t *s, reader_t *r)
{
    const uint8_t *body = s->link.body;
    mdy_status_t sent = MDY_OK;
    while (sent == MDY_OK) {
        uint32_t received = s->kept;
        s->kept = 0;
        const mdy_status_t status = received > 0 ? MDY_OK : mdy_link_receive(s->port, &s->link, &received);
        if (status == MDY_LINK) {
            return status;
        }
        if (received < HEAD || body[3] != REQUEST) {
            continue;
        }
        const int is_open = session_of(body) == s->session;
        if (status != MDY_OK) {
            if (is_open && s->session != 0 && body[0] == MDY_PROTOCOL) {
                sent = refuse(s, C_NONE, MDY_FRAME);
            }
            continue;
        }
        if (body[0] != MDY_PROTOCOL) {
            sent = refuse(s, body[2], MDY_FRAME);
            continue;
        }
        if (!is_open && body[2] != C_HELLO) {
            sent = refuse(s, body[2], MDY_SESSION);
            continue;
        }
        if (is_open && s->answered != 0 && body[1] == s->sequence && body[2] == s->link.reply[2]) {
            sent = mdy_link_send(s->port, s->link.reply, s->answered);
            continue;
        }
        s->session = (uint16_t)session_of(body);
        for (uint32_t i = 0; i < HEAD; i++) {
            s->link.reply[i] = body[i];
        }
        s->sequence = body[1];
        s->answered = 0;
        const reader_t reader = {body + HEAD, received - HEAD, 0};
        *r = reader;
        return MDY_OK;
    }
    return sent;
}

/*
 * The next piece of a sample, in the middle of its step. The request before it is answered now: nothing is on the
 * line while rows are computed. Another request ends the step, and is carried out after it.
 */
static int next_piece(mdy_server_t *s)
{
    reader_t reader;
    const mdy_status_t sent = answer(s, MDY_OK, HEAD);
    s->unanswered = 0;
    if (sent != MDY_OK || next_request(s, &reader) != MDY_OK) {
        return 0;
    }
    if (s->link.reply[2] != C_DATA) {
        s->kept = reader.left + HEAD;
        return 0;
    }
    const uint32_t left = mdy_tensor_bytes(&s->model->input) - s->input_bytes;
    const uint32_t offset = get(&reader, 4);
    if (reader.bad || offset != s->input_bytes || reader.left > left) {
        (void)answer(s, MDY_STATE, HEAD);
        return 0;
    }
    s->piece = reader.at;
    s->piece_bytes = reader.left;
    s->input_bytes += reader.left;
    s->unanswered = 1;
    return 1;
}

static int load_row(void *context, uint16_t row, int8_t *values)
{
    mdy_server_t *s = context;
    uint32_t left = (uint32_t)s->model->input.shape.w * s->model->input.shape.c;
    const uint32_t start = ticks(s->port);
    (void)row; /* pieces come in order */
    while (left > 0) {
        if (s->piece_bytes == 0 && !next_piece(s)) {
            return 1;
        }
        const uint32_t part = s->piece_bytes < left ? s->piece_bytes : left;
        memcpy(values, s->piece, part);
        values += part;
        s->piece += part;
        s->piece_bytes -= part;
        left -= part;
    }
    s->waited += ticks(s->port) - start;
    return 0;
}

static mdy_status_t sample(mdy_server_t *s, reader_t *r, uint32_t *n, int train)
{
    mdy_result_t result = {0, 0};
    const uint16_t label = (uint16_t)get(r, 2);
    const int by_rows = mdy_by_rows(s->model);
    if (r->bad || (!by_rows && s->input_bytes != mdy_tensor_bytes(&s->model->input))) {
        return MDY_STATE;
    }
    if (by_rows && train && label >= mdy_classes(s->model)) {
        return MDY_ARGUMENT; /* before the host sends the sample */
    }
    s->input_bytes = 0; /* the step uses the sample up */
    s->piece_bytes = 0;
    s->waited = 0;
    const uint32_t start = ticks(s->port);
    const mdy_status_t status = train ? mdy_train_step(&s->net, label, &result) : mdy_infer(&s->net, label, &result);
    /* Of a moved sample the step does without some rows; they are on their way. */
    while (by_rows && status == MDY_OK && s->input_bytes < mdy_tensor_bytes(&s->model->input)) {
        if (!next_piece(s)) {
            return MDY_ABORTED;
        }
    }
    const uint32_t taken = ticks(s->port) - start - s->waited;
    put(s, n, result.loss);
    put(s, n, result.prediction);
    put(s, n, taken);
    put(s, n, s->net.saturations);
    return status;
}

static mdy_status_t read_array(mdy_server_t *s, reader_t *r, uint32_t *n)
{
    const uint32_t kind = get(r, 1);
    const uint32_t offset = get(r, 4);
    uint32_t part = get(r, 1);
    if (r->bad || part > MDY_LINK_REPLY - *n) {
        return MDY_ARGUMENT;
    }
    const mdy_status_t status = mdy_readout(&s->net, kind, offset, s->link.reply + *n, &part);
    *n += status == MDY_OK ? part : 0;
    return status;
}

/* Loss, selection and delta digests, the state's, and that of the whole flash. */
static mdy_status_t digests(mdy_server_t *s, uint32_t *n)
{
    put(s, n, s->net.loss_crc);
    put(s, n, s->net.selection_crc);
    put(s, n, mdy_readout_deltas(&s->net));
    put(s, n, mdy_crc32(0, s->net.state, s->net.saved_bytes));
    put(s, n,
        s->model->weights_in_ram ? 0 : mdy_readout_flash(&s->net, s->link.reply + *n)); /* what is still free of it */
    return MDY_OK;
}

static mdy_status_t marks(mdy_server_t *s, uint32_t *n)
{
    const mdy_port_t *port = s->port;
    const mdy_model_t *model = s->model;
    put(s, n, mdy_readout_mark(s->net.planned, model->planned_bytes, s->pattern));
    put(s, n, mdy_readout_mark(s->net.epoch, model->epoch_bytes, s->pattern));
    put(s, n, mdy_readout_mark(s->net.state, model->state.bytes, s->pattern));
    put(s, n, port->stack_mark == NULL ? 0 : port->stack_mark(port->context, s->pattern));
    put(s, n, port->static_bytes == NULL ? 0 : port->static_bytes(port->context));
    put(s, n, (uint32_t)sizeof s->link);
    return MDY_OK;
}

static mdy_status_t force(mdy_server_t *s, reader_t *r)
{
    /* The counts replace the input that has not come yet: the planned region is free between steps. */
    uint16_t *counts = (uint16_t *)(void *)s->net.planned;
    const uint32_t n = s->model->candidate_count;
    if (r->left != 2u * n || 2u * n > s->model->planned_bytes) {
        return MDY_FRAME;
    }
    for (uint32_t i = 0; i < n; i++) {
        counts[i] = (uint16_t)get(r, 2);
    }
    s->input_bytes = 0;
    return mdy_force_selection(&s->net, counts);
}

static mdy_status_t carry_out(mdy_server_t *s, uint32_t command, reader_t *r, uint32_t *n)
{
    mdy_status_t status = is_guarded(command, r) ? permit(s, r) : MDY_OK;
    if (status != MDY_OK) {
        return status;
    }
    if (command == C_HELLO) {
        return hello(s, n);
    }
    if (command == C_CHALLENGE) {
        return challenge(s, n);
    }
    if (command == C_BEGIN) {
        return begin(s, r, n);
    }
    if (command == C_EXIT) {
        return MDY_OK;
    }
    if (!s->ready) {
        return MDY_STATE;
    }
    switch (command) {
    case C_DATA:
        return data(s, r, n);
    case C_TARGET:
        return target(s, r);
    case C_TRAIN:
        return sample(s, r, n, 1);
    case C_INFER:
        return sample(s, r, n, 0);
    case C_COMMIT:
        status = mdy_end_epoch(&s->net);
        s->input_bytes = 0;
        put_position(s, n);
        return status;
    case C_READ:
        return read_array(s, r, n);
    case C_DIGESTS:
        return digests(s, n);
    case C_MARKS:
        return marks(s, n);
    case C_FORCE:
        return force(s, r);
    case C_ROLL_BACK: /* the weights in use may be gone: BEGIN must follow */
        s->ready = 0;
        status = mdy_roll_back(&s->net);
        put(s, n, s->net.fault);
        return status;
    case C_RESET:
        s->ready = 0;
        status = mdy_factory_reset(&s->net, (int)get(r, 1) & 1); /* without the field 0 */
        put(s, n, s->net.fault);
        return status;
    default:
        return MDY_ARGUMENT;
    }
}

mdy_status_t mdy_serve(mdy_server_t *s)
{
    for (;;) {
        reader_t reader;
        uint32_t n = HEAD;
        mdy_status_t status = next_request(s, &reader);
        if (status != MDY_OK) {
            return status;
        }
        s->unanswered = 1;
        const uint32_t command = s->link.reply[2];
        status = carry_out(s, command, &reader, &n);
        if (s->unanswered) {
            const mdy_status_t sent = answer(s, status, n);
            if (sent != MDY_OK || (command == C_EXIT && status == MDY_OK)) {
                return sent;
            }
        }
    }
}
