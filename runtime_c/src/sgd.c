/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/sgd.h"

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/gradient_norm.h"
#include "mdy/rng.h"

/* What is done with the sums of a tap: their squares go to the norms, they change deltas, or wait for their batch. */
enum { MEASURE = 1, APPLY = 2, ADD = 4 };

/* log2 of the unit of a batch's sums without a clip, in norm units: 2^-13 of dL/dw. */
#define UNCLIPPED_UNIT 5

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Adds to the norms of the channel and of the layer. */
static void measure(mdy_update_t *u, uint8_t *record, const mdy_wacc_t *sums)
{
    const mdy_conv_t *p = u->layer->p;
    const uint32_t first = mdy_first_output(p, mdy_record_channel(record));
    const int exponent = mdy_reduced_exponent(u->exponent) + p->norm_exponent;
    const uint64_t squares = mdy_squares(sums, p->rate_mult + first, p->group_out, p->norm_mult, exponent);
    mdy_record_set_squares(record, add_saturated(mdy_record_squares(record), squares));
    u->squares = add_saturated(u->squares, squares);
}

/* D - step, where both D and base + D stay in their ranges; base: the weight that D is added to, |step| <= 2^30. */
static inline int8_t changed(int8_t delta, int32_t base, int32_t step, int32_t w_min)
{
    const int32_t weight = base + delta - step;
    const int32_t value = (weight < w_min ? w_min : weight > 127 ? 127 : weight) - base;
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}

/* mdy_stochastic_shift, but no further than 2^30: a change of weights is out of any range before. */
static inline int32_t step_of(int64_t x, int shift, uint32_t random)
{
    if (mdy_is_usual_shift(shift)) {
        return mdy_usual_shift(x, shift, random);
    }
    const int32_t step = mdy_stochastic_shift(x, shift, random);
    return step > 1 << 30 ? 1 << 30 : step < -(1 << 30) ? -(1 << 30) : step;
}

/* log2 of the unit in which a batch's gradients are summed up, in norm units: 15 bits hold 8 times the clip or more. */
static int batch_unit(const mdy_update_t *u)
{
    const uint32_t clip = mdy_norm_unpack(u->m->schedule.clip);
    return clip == 0 ? UNCLIPPED_UNIT : (int)(mdy_log2_16(clip) >> 4) - 11;
}

/* The weights of a tap of a channel, from output to output. */
typedef struct {
    uint32_t first, step; /* offsets */
} stride_t;

static stride_t weights_of(const mdy_update_t *u, uint32_t first, uint32_t tap, uint32_t channel)
{
    const mdy_conv_t *p = u->layer->p;
    const uint32_t offset = u->layer->op->weight_offset(p, first, tap, channel);
    const uint32_t next = p->group_out > 1 ? u->layer->op->weight_offset(p, first + 1, tap, channel) : offset;
    const stride_t stride = {offset, next - offset};
    return stride;
}

/* The mean gradient of a batch so far, in a channel's record: as many as it has weights. */
static int16_t *mean_of(const mdy_update_t *u, uint8_t *record)
{
    return (int16_t *)mdy_record_kept(u->selected, record, sizeof(int16_t));
}

/* Adds a sample's share of the mean gradient to the sums of its batch. */
static void add(const mdy_update_t *u, uint8_t *record, uint32_t tap, const mdy_wacc_t *sums)
{
    const mdy_conv_t *p = u->layer->p;
    const uint32_t channel = mdy_record_channel(record);
    const uint32_t first = mdy_first_output(p, channel);
    int16_t *mean = mean_of(u, record) + tap * p->group_out;
    const int exponent = mdy_reduced_exponent(u->exponent) + p->norm_exponent - batch_unit(u) - u->m->model->batch_log2;
    for (uint32_t i = 0; i < p->group_out; i++) {
        const int32_t sum = p->rate_mult[first + i] == 0 ? 0 : mdy_reduce(sums[i]);
        if (sum != 0) {
            const uint32_t offset = u->layer->op->weight_offset(p, first + i, tap, channel);
            const int64_t product = (int64_t)sum * p->norm_mult;
            const int64_t share = mdy_stochastic_shift(product, -exponent, mdy_rng(u->key, offset));
            mean[i] = mdy_clamp16(mean[i] + share);
        }
    }
}

static void apply(const mdy_update_t *u, uint8_t *record, uint32_t tap, const mdy_wacc_t *sums)
{
    const mdy_conv_t *p = u->layer->p;
    const uint32_t channel = mdy_record_channel(record);
    const uint32_t first = mdy_first_output(p, channel);
    int8_t *delta = mdy_record_delta(record) + tap * p->group_out;
    const int exponent = mdy_reduced_exponent(u->exponent) + u->rate_exponent;
    const stride_t stride = weights_of(u, first, tap, channel);
    const uint16_t *rate_mult = p->rate_mult + first;
    const int8_t *rate_exponent = p->rate_exponent + first;
    /* Copies: a store of int8 may be to anything, and they would be read again each time. */
    const int8_t *weights = u->weights;
    const uint32_t rate = u->rate_mult;
    const uint32_t key = u->key;
    const uint32_t count = p->group_out;
    const int32_t w_min = p->w_min;
    uint32_t offset = stride.first;
    for (uint32_t i = 0; i < count; i++, offset += stride.step) {
        const int32_t sum = mdy_reduce(sums[i]);
        if (sum != 0 && rate_mult[i] != 0) {
            const int64_t product = (int64_t)sum * (int32_t)(rate_mult[i] * rate); /* 15 and 16 bits */
            const int32_t step = step_of(product, -(exponent + rate_exponent[i]), mdy_rng(key, offset));
            delta[i] = changed(delta[i], weights[offset], step, w_min);
        }
    }
}

static void take_tap(mdy_update_t *u, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    uint8_t *record = mdy_record(u->selected, slot);
    if ((u->mode & MEASURE) != 0) {
        measure(u, record, sums);
    }
    if ((u->mode & APPLY) != 0) {
        apply(u, record, tap, sums);
    }
    if ((u->mode & ADD) != 0) {
        add(u, record, tap, sums);
    }
}

/* Lowers the rate where what was measured is longer than the schedule's clip. */
static void clip(mdy_update_t *u)
{
    const uint64_t most = mdy_norm_unpack(u->m->schedule.clip);
    const uint64_t norm = mdy_isqrt(u->squares);
    if (norm <= most) {
        return;
    }
    uint64_t mult = ((u->rate_mult * most) << 15) / norm;
    int32_t exponent = u->rate_exponent - 15;
    while (mult > UINT16_MAX) {
        mult >>= 1;
        exponent++;
    }
    u->rate_mult = (uint32_t)mult;
    u->rate_exponent = exponent;
}

/* Takes `rate_mult` times the mean gradient of one channel from its delta. */
static void take_channel(const mdy_update_t *u, uint32_t slot, uint32_t rate_mult)
{
    const mdy_conv_t *p = u->layer->p;
    uint8_t *record = mdy_record(u->selected, slot);
    const uint32_t channel = mdy_record_channel(record);
    const uint32_t first = mdy_first_output(p, channel);
    int8_t *delta = mdy_record_delta(record);
    int16_t *mean = mean_of(u, record);
    const int exponent = batch_unit(u) + u->rate_exponent - p->norm_exponent - 16;
    for (uint32_t i = 0; i < u->selected->delta_bytes; i++) {
        const uint32_t o = first + i % p->group_out;
        if (mean[i] != 0) { /* not of a frozen output */
            const uint32_t offset = u->layer->op->weight_offset(p, o, i / p->group_out, channel);
            const uint32_t scale = ((uint32_t)p->rate_mult[o] << 16) / p->norm_mult; /* of 1 / s_w, at most 2^17 */
            const int64_t product = (int64_t)mean[i] * scale * rate_mult;
            const int32_t step = step_of(product, -(exponent + p->rate_exponent[o]), mdy_rng(u->key, offset));
            delta[i] = changed(delta[i], u->weights[offset], step, p->w_min);
        }
    }
    memset(mean, 0, u->selected->delta_bytes * sizeof *mean);
}

/* The mean gradient is clipped here: what each sample gave was not. */
static void take_batch(mdy_update_t *u)
{
    const int unit = batch_unit(u);
    const uint64_t longest = mdy_norm_unpack(u->m->schedule.clip);
    const uint64_t most = unit < 0 ? longest << -unit : longest >> unit;
    uint32_t rate_mult = u->rate_mult;
    for (uint32_t slot = 0; slot < u->selected->count; slot++) {
        const int16_t *mean = mean_of(u, mdy_record(u->selected, slot));
        for (uint32_t i = 0; i < u->selected->delta_bytes; i++) {
            u->squares += (uint64_t)(mean[i] * mean[i]); /* 2^30 at most of each */
        }
    }
    const uint64_t norm = mdy_isqrt(u->squares);
    if (longest != 0 && norm > most) {
        rate_mult = (uint32_t)(rate_mult * most / norm);
    }
    for (uint32_t slot = 0; slot < u->selected->count; slot++) {
        take_channel(u, slot, rate_mult);
    }
}

static void take_biases(mdy_update_t *u, const mdy_biases_t *p, int32_t *bias)
{
    const uint32_t outputs = u->layer->p->out.c;
    const int exponent = mdy_reduced_exponent(u->exponent);
    for (uint32_t o = 0; o < outputs && u->m->schedule.clip != 0; o++) {
        const uint64_t squares = mdy_squares(&u->sums[o], &p->rate_mult[o], 1, p->norm_mult,
                                             exponent + p->norm_exponent);
        u->squares = add_saturated(u->squares, squares);
    }
    if (u->m->schedule.clip != 0) {
        clip(u);
    }
    for (uint32_t o = 0; o < outputs; o++) {
        const int64_t product = (int64_t)mdy_reduce(u->sums[o]) * (int64_t)(p->rate_mult[o] * u->rate_mult);
        const int shift = -(exponent + p->rate_exponent[o] + u->rate_exponent);
        const int64_t value = bias[o] - (int64_t)mdy_stochastic_shift(product, shift, mdy_rng(u->key, o));
        bias[o] = (int32_t)(value < -p->most ? -p->most : value > p->most ? p->most : value);
    }
}

static void take_layer(mdy_update_t *u)
{
    const int bounded = u->m->model->batch_log2 == 0 && u->m->schedule.clip != 0;
    u->mode = u->m->model->batch_log2 > 0 ? MEASURE | ADD : bounded ? MEASURE : MEASURE | APPLY;
    u->pass(u);
    if (bounded) {
        clip(u);
        u->mode = APPLY;
        u->pass(u);
    }
}

const mdy_optimizer_t mdy_sgd = {
    .layer = take_layer,
    .tap = take_tap,
    .biases = take_biases,
    .batch = take_batch,
};
