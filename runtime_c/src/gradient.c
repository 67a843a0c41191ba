/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/gradient.h"

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/view.h"

/* Below this a tensor's gradient counts as vanished: 100 octaves under the loss gradient. */
#define SLOT_MIN (-1600)

/* Steps of 2^29 and more round away too much to be carried in the room that sums leave: half a step, 2^28. */
#define CARRY_BITS_MAX 30

void mdy_sink_open(mdy_sink_t *sink, mdy_t *m, const mdy_gradient_t *dx, const mdy_joins_t *joins, uint32_t scratch,
                   int acc_exponent, uint16_t row)
{
    sink->m = m;
    sink->dx = dx;
    sink->view = mdy_grad_view(m, dx);
    sink->acc = (int32_t *)(void *)(m->planned + scratch);
    sink->joins = joins;
    /* In front of the epoch's deepest layer the forward pass keeps no masks, and nothing reads this gradient. */
    sink->masked = dx->mask.offset != MDY_NONE && dx->order >= m->deepest;
    sink->acc_exponent = acc_exponent;
    sink->max = 0;
    sink->row = -1;
    memset(sink->acc, 0, dx->shape.c * sizeof *sink->acc);
    if (row == 0) {
        const int32_t r = m->slot_r[dx->slot];
        m->slot_e[dx->slot] = (int16_t)(((r + m->reference + 15) >> 4) - (MDY_GRAD_BITS - 1));
        m->slot_r[dx->slot] = (int16_t)(r - 2 < SLOT_MIN ? SLOT_MIN : r - 2);
    }
    sink->shift = acc_exponent - m->slot_e[dx->slot];
    sink->narrow = sink->shift < 0 && sink->shift > -CARRY_BITS_MAX;
}

int32_t *mdy_sink_begin(mdy_sink_t *sink)
{
    return sink->acc;
}

int16_t *mdy_sink_terms(mdy_sink_t *sink)
{
    return (int16_t *)(void *)(sink->acc + sink->dx->shape.c);
}

/* Where a joined gradient is, and what brings it to the accumulators' exponent. */
typedef struct {
    const mdy_grad_t *row;
    int mult, exponent;
} joined_t;

static joined_t joined(const mdy_sink_t *sink, uint32_t number, int32_t y)
{
    const mdy_join_t *join = &sink->joins->joins[number];
    const mdy_view_t view = mdy_grad_view(sink->m, join->gradient);
    const int exponent = sink->m->slot_e[join->gradient->slot] + join->exponent - sink->acc_exponent;
    const joined_t result = {mdy_grad_row(&view, y), join->mult, exponent};
    return result;
}

static inline int32_t add_joined(const joined_t *join, uint32_t i, int32_t acc)
{
    const int32_t g = join->row[i];
    return g == 0 ? acc : mdy_clamp32((int64_t)acc + mdy_scale2(g * join->mult, join->exponent));
}

/* Where the values of a row go. */
static void turn_to(mdy_sink_t *sink, int32_t y)
{
    if (sink->row != y) {
        sink->row = y;
        sink->mask = sink->masked ? mdy_mask_row(sink->m, &sink->dx->mask, sink->dx->shape, y) : NULL;
        sink->out = mdy_grad_row(&sink->view, y);
    }
}

/* Stores a value that no mask drops; returns what rounding takes from it, for the next pixel. */
static int32_t store_any(mdy_sink_t *sink, mdy_grad_t *out, int32_t acc)
{
    const int shift = sink->shift;
    const uint32_t magnitude = acc < 0 ? 0u - (uint32_t)acc : (uint32_t)acc;
    sink->max = magnitude > sink->max ? magnitude : sink->max;
    const int32_t value = sink->narrow ? ((acc >> (-shift - 1)) + 1) >> 1 : mdy_scale2(acc, shift);
    if (value > MDY_GRAD_MAX || value < -MDY_GRAD_MAX) {
        *out = (mdy_grad_t)(value > 0 ? MDY_GRAD_MAX : -MDY_GRAD_MAX);
        sink->m->saturations = mdy_count(sink->m->saturations);
        return 0;
    }
    *out = (mdy_grad_t)value;
    return sink->narrow ? (int32_t)((uint32_t)acc - ((uint32_t)value << -shift)) : 0;
}

/* Stores the row's i-th value, if it is not masked. */
static inline int32_t store_value(mdy_sink_t *sink, uint32_t i, int32_t acc)
{
    if (sink->mask != NULL && (sink->mask[i / 8] >> (i % 8) & 1u) == 0) {
        sink->out[i] = 0; /* does not count for the exponent either */
        return 0;
    }
    return store_any(sink, sink->out + i, acc);
}

static uint32_t join_count(const mdy_sink_t *sink)
{
    return sink->joins == NULL ? 0 : sink->joins->count;
}

/* Sums of 2^30 and more are rounded with care. */
#define ROUND_MAX (UINT32_C(1) << 30)

/* Below this |sum| (of negative ones, less one) a value is neither saturated nor the largest so far nor hard to round. */
static uint32_t plain_below(const mdy_sink_t *sink)
{
    const uint32_t shift = (uint32_t)-sink->shift;
    const uint64_t saturated = (uint64_t)(2 * MDY_GRAD_MAX + 1) << (shift - 1);
    const uint32_t most = saturated < ROUND_MAX ? (uint32_t)saturated : ROUND_MAX;
    return sink->max < most ? sink->max : most;
}

/* Stores a sum that is below `plain`; returns what rounding takes from it. */
static inline int32_t store_small(mdy_grad_t *out, int32_t acc, uint32_t shift)
{
    const int32_t value = (acc + (1 << (shift - 1))) >> shift;
    *out = (mdy_grad_t)value;
    return (int32_t)((uint32_t)acc - ((uint32_t)value << shift));
}

/* Stores a pixel, whose first value is the row's i-th, where 32 bits do; leaves what rounding takes in its accumulators. */
static void store_pixel(mdy_sink_t *sink, uint32_t i)
{
    const uint32_t channels = sink->dx->shape.c;
    const uint32_t shift = (uint32_t)-sink->shift;
    const uint8_t *mask = sink->mask;
    mdy_grad_t *out = sink->out + i;
    int32_t *acc = sink->acc;
    uint32_t plain = plain_below(sink);
    for (uint32_t c = 0; c < channels; c++, i++) {
        if (mask != NULL && (mask[i / 8] >> (i % 8) & 1u) == 0) {
            out[c] = 0; /* does not count for the exponent either */
            acc[c] = 0;
        } else if ((uint32_t)(acc[c] ^ (acc[c] >> 31)) < plain) {
            acc[c] = store_small(out + c, acc[c], shift);
        } else {
            acc[c] = store_any(sink, out + c, acc[c]);
            plain = plain_below(sink);
        }
    }
}

/* What rounding takes from a pixel goes to the next one, so that sums along a row stay right. */
void mdy_sink_end(mdy_sink_t *sink, int32_t y, int32_t x)
{
    const uint32_t channels = sink->dx->shape.c;
    const uint32_t first = (uint32_t)x * channels;
    for (uint32_t number = 0; number < join_count(sink); number++) {
        const joined_t join = joined(sink, number, y);
        for (uint32_t c = 0; c < channels; c++) {
            sink->acc[c] = add_joined(&join, first + c, sink->acc[c]);
        }
    }
    const int is_last = x + 1 == sink->dx->shape.w;
    int32_t *acc = sink->acc;
    turn_to(sink, y);
    if (sink->narrow) {
        store_pixel(sink, first);
    } else {
        for (uint32_t c = 0; c < channels; c++) {
            acc[c] = store_value(sink, first + c, acc[c]);
        }
    }
    if (is_last) {
        memset(acc, 0, channels * sizeof *acc);
    }
}

/* What stores a channel's values of some pixels of a row: without joins, where 32 bits do. */
typedef struct {
    mdy_sink_t *sink;
    uint32_t shift; /* to the right */
    uint32_t plain; /* see plain_below */
    uint32_t pitch; /* values from pixel to pixel */
    uint32_t step;  /* bytes of the mask from pixel to pixel, whose bits are in the same place */
} store_t;

/* Returns what the last pixel leaves. One at a time: unrolled, it needs more registers than a core has. */
static int32_t store_channel(store_t *store, const uint8_t *mask, uint32_t bit, mdy_grad_t *out, int32_t carry,
                             const int32_t *sums, const int32_t *end)
{
    const uint32_t pitch = store->pitch;
    const uint32_t step = store->step;
    const uint32_t shift = store->shift;
    uint32_t plain = store->plain;
#pragma GCC unroll 1
    for (; sums != end; sums++, out += pitch, mask += step) {
        if ((*mask & bit) == 0) {
            *out = 0;
            carry = 0;
            continue;
        }
        const int32_t acc = (int32_t)((uint32_t)carry + (uint32_t)*sums);
        if ((uint32_t)(acc ^ (acc >> 31)) < plain) {
            carry = store_small(out, acc, shift);
        } else {
            carry = store_any(store->sink, out, acc);
            plain = store->plain = plain_below(store->sink);
        }
    }
    return carry;
}

/* The same with joins, or where 32 bits do not do. first: what is joined first. */
static int32_t store_joined(mdy_sink_t *sink, int32_t y, const joined_t *first, uint32_t i, uint32_t count,
                            int32_t carry, const int32_t *sums)
{
    const uint32_t joins = join_count(sink);
    for (const int32_t *end = sums + count; sums != end; sums++, i += sink->dx->shape.c) {
        int32_t acc = (int32_t)((uint32_t)carry + (uint32_t)*sums);
        acc = joins > 0 ? add_joined(first, i, acc) : acc;
        for (uint32_t number = 1; number < joins; number++) {
            const joined_t join = joined(sink, number, y);
            acc = add_joined(&join, i, acc);
        }
        carry = store_value(sink, i, acc);
    }
    return carry;
}

void mdy_sink_channels(mdy_sink_t *sink, int32_t y, uint32_t x, uint32_t count, uint32_t c, uint32_t channels,
                       const int32_t *sums, uint32_t pitch)
{
    static const uint8_t all = 0xFF;
    const uint32_t all_channels = sink->dx->shape.c;
    const int is_last = x + count == sink->dx->shape.w;
    uint32_t i = x * all_channels + c;
    turn_to(sink, y);
    const int is_masked = sink->mask != NULL;
    const int is_simple = sink->narrow && join_count(sink) == 0 && !(is_masked && all_channels % 8 != 0);
    store_t store = {sink, (uint32_t)-sink->shift, 0, all_channels, is_masked ? all_channels / 8 : 0};
    store.plain = is_simple ? plain_below(sink) : 0;
    joined_t first = {NULL, 0, 0};
    if (join_count(sink) > 0) {
        first = joined(sink, 0, y);
    }
    for (int32_t *carry = sink->acc + c; channels > 0; channels--, carry++, i++, sums += pitch) {
        const uint8_t *mask = is_masked ? sink->mask + i / 8 : &all;
        const int32_t left = is_simple
                                 ? store_channel(&store, mask, 1u << i % 8, sink->out + i, *carry, sums, sums + count)
                                 : store_joined(sink, y, &first, i, count, *carry, sums);
        *carry = is_last ? 0 : left;
    }
}

void mdy_sink_close(const mdy_sink_t *sink)
{
    if (sink->max > 0) {
        int16_t *r = &sink->m->slot_r[sink->dx->slot];
        const int32_t seen = mdy_log2_16(sink->max) + 1 + 16 * sink->acc_exponent - sink->m->reference;
        *r = (int16_t)(seen > INT16_MAX ? INT16_MAX : seen > *r ? seen : *r);
    }
}

void mdy_back_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_gradient_t *dy, mdy_band_t rows)
{
    const mdy_view_t view = mdy_grad_view(m, dy);
    const uint32_t n = (uint32_t)dy->shape.w * dy->shape.c;
    if (order < m->deepest || m->aborted) {
        return;
    }
    for (uint16_t row = rows.begin; row < rows.end && row < dy->shape.h; row++) {
        mdy_grad_t *values = mdy_grad_row(&view, row);
        const uint8_t *bits = mdy_mask_row(m, mask, dy->shape, row);
        for (uint32_t i = 0; i < n; i++) {
            if ((bits[i / 8] >> (i % 8) & 1u) == 0) {
                values[i] = 0;
            }
        }
    }
}

void mdy_back_copy(mdy_t *m, uint16_t order, const mdy_gradient_t *dy, const mdy_gradient_t *dx, mdy_band_t rows)
{
    if (mdy_stops_at(m, order)) {
        return;
    }
    const mdy_view_t from = mdy_grad_view(m, dy);
    const mdy_view_t to = mdy_grad_view(m, dx);
    for (uint16_t row = rows.begin; row < rows.end && row < dy->shape.h; row++) {
        memcpy(mdy_grad_row(&to, row), mdy_grad_row(&from, row), from.row_bytes);
    }
}

/* The finest exponent at which every joined gradient still fits 30 bits. */
static int sum_exponent(const mdy_t *m, const mdy_joins_t *joins)
{
    int highest = INT16_MIN;
    for (uint32_t j = 0; j < joins->count; j++) {
        const mdy_join_t *join = &joins->joins[j];
        const int exponent = m->slot_e[join->gradient->slot] + join->exponent;
        highest = exponent > highest ? exponent : highest;
    }
    return highest + MDY_GRAD_BITS - 1 + 15 - 28;
}

void mdy_back_sum(mdy_t *m, uint16_t order, const mdy_gradient_t *dx, const mdy_joins_t *joins, uint32_t scratch)
{
    if (mdy_stops_at(m, order)) {
        return;
    }
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, scratch, sum_exponent(m, joins), 0);
    for (mdy_rows_t walk = mdy_rows(m, dx->shape.h, MDY_ALL); mdy_next_row(&walk);) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            (void)mdy_sink_begin(&sink);
            mdy_sink_end(&sink, walk.row, x);
        }
    }
    mdy_sink_close(&sink);
}
