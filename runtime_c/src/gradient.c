/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/gradient.h"

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/view.h"

/* Below this a tensor's gradient counts as vanished: 100 octaves under the loss gradient. */
#define SLOT_MIN (-1600)

/* Steps of 2^29 and more round away too much to be carried in the room that sums leave: half a step, 2^28. */
#define CARRY_BITS_MAX 30

void mdy_sink_open(mdy_sink_t *sink, mdy_t *m, const mdy_gradient_t *dx, const mdy_joins_t *joins,
                   uint32_t scratch, int acc_exponent, uint16_t row)
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
    memset(sink->acc, 0, dx->shape.c * sizeof *sink->acc);
    if (row == 0) {
        const int32_t r = m->slot_r[dx->slot];
        m->slot_e[dx->slot] = (int16_t)(((r + m->reference + 15) >> 4) - (MDY_GRAD_BITS - 1));
        m->slot_r[dx->slot] = (int16_t)(r - 2 < SLOT_MIN ? SLOT_MIN : r - 2);
    }
}

int32_t *mdy_sink_begin(mdy_sink_t *sink)
{
    return sink->acc;
}

int16_t *mdy_sink_terms(mdy_sink_t *sink)
{
    return (int16_t *)(void *)(sink->acc + sink->dx->shape.c);
}

/* Adds a gradient from another consumer of the tensor, brought to the accumulators' exponent. */
static void add_join(const mdy_sink_t *sink, const mdy_join_t *join, int32_t y, int32_t x)
{
    const mdy_view_t view = mdy_grad_view(sink->m, join->gradient);
    const uint32_t channels = sink->dx->shape.c;
    const mdy_grad_t *g = mdy_grad_row(&view, y) + (uint32_t)x * channels;
    const int exponent = sink->m->slot_e[join->gradient->slot] + join->exponent - sink->acc_exponent;
    for (uint32_t c = 0; c < channels; c++) {
        if (g[c] != 0) {
            const int32_t value = mdy_scale2((int32_t)g[c] * join->mult, exponent);
            sink->acc[c] = mdy_clamp32((int64_t)sink->acc[c] + value);
        }
    }
}

void mdy_sink_end(mdy_sink_t *sink, int32_t y, int32_t x)
{
    for (uint32_t j = 0; sink->joins != NULL && j < sink->joins->count; j++) {
        add_join(sink, &sink->joins->joins[j], y, x);
    }
    const uint32_t channels = sink->dx->shape.c;
    const int shift = sink->acc_exponent - sink->m->slot_e[sink->dx->slot];
    const int narrow = shift < 0 && shift > -CARRY_BITS_MAX; /* 32 bits do, and a carry has room */
    /* What rounding takes from a pixel goes to the next one, so that sums along a row stay right. */
    const int carries = narrow && x + 1 < sink->dx->shape.w;
    const uint32_t first = (uint32_t)x * channels;
    /* Copies, because a store of int8 may be to anything: the compiler would read them again for each value. */
    int32_t *accs = sink->acc;
    const uint8_t *mask = sink->masked ? mdy_mask_row(sink->m, &sink->dx->mask, sink->dx->shape, y) : NULL;
    uint32_t max = sink->max;
    mdy_grad_t *out = mdy_grad_row(&sink->view, y) + (uint32_t)x * channels;
    for (uint32_t c = 0; c < channels; c++) {
        const uint32_t i = first + c;
        const int32_t acc = accs[c];
        accs[c] = 0;
        if (mask != NULL && (mask[i / 8] >> (i % 8) & 1u) == 0) {
            out[c] = 0; /* does not count for the exponent either */
            continue;
        }
        const uint32_t magnitude = acc < 0 ? 0u - (uint32_t)acc : (uint32_t)acc;
        max = magnitude > max ? magnitude : max;
        int32_t value = narrow ? (acc >> -shift) + ((acc >> (-shift - 1)) & 1) : mdy_scale2(acc, shift);
        if (value > MDY_GRAD_MAX || value < -MDY_GRAD_MAX) {
            value = value > 0 ? MDY_GRAD_MAX : -MDY_GRAD_MAX;
            sink->m->saturations = mdy_count(sink->m->saturations);
        } else if (carries) {
            accs[c] = (int32_t)((uint32_t)acc - ((uint32_t)value << -shift));
        }
        out[c] = (mdy_grad_t)value;
    }
    sink->max = max;
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

void mdy_back_sum(mdy_t *m, uint16_t order, const mdy_gradient_t *dx, const mdy_joins_t *joins,
                  uint32_t scratch)
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
