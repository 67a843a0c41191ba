/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/sgd.h"

#include "mdy/fixed.h"
#include "mdy/rng.h"

/* Norm units: one channel's |dL/dw| is clipped here, so that 2^16 squares fit 64 bits. */
#define NORM_MAX ((int64_t)1 << 24)

void mdy_sgd_schedule(mdy_t *m)
{
    const mdy_schedule_t *s = &m->schedule;
    uint64_t factor = 65536;
    if (m->steps < s->warmup_steps) {
        factor = ((uint64_t)(m->steps + 1) << 16) / s->warmup_steps;
    } else if (s->cosine != 0) {
        const uint32_t done = m->steps - s->warmup_steps;
        const uint32_t length = s->total_steps > s->warmup_steps ? s->total_steps - s->warmup_steps : 1;
        factor = done >= length ? 0 : mdy_cos2((uint32_t)(((uint64_t)done << 16) / length));
    }
    m->rate_mult = (uint32_t)((s->rate_mult * factor) >> 16);
    m->rate_exponent = s->rate_exponent;
}

/* A sum over pixels as 32 bits; the 16-bit build gives up 8 bits of it, see reduced_exponent. */
static int32_t reduce(mdy_wacc_t sum)
{
    return MDY_GRAD_BITS == 16 ? mdy_clamp32(mdy_round_shift(sum, 8)) : (int32_t)sum;
}

static int reduced_exponent(int exponent)
{
    return MDY_GRAD_BITS == 16 ? exponent + 8 : exponent;
}

/* |sum| * mult * 2^exponent squared, in norm units. */
static uint64_t squared(int32_t sum, uint16_t mult, int exponent)
{
    int64_t value = (int64_t)(sum < 0 ? -(int64_t)sum : sum) * mult;
    if (exponent <= 0) {
        value = exponent < -62 ? 0 : mdy_round_shift(value, -exponent);
    } else {
        value = exponent > 14 ? (value != 0 ? NORM_MAX : 0) : value * ((int64_t)1 << exponent);
    }
    value = value > NORM_MAX ? NORM_MAX : value;
    return (uint64_t)value * (uint64_t)value;
}

static void add_squares(uint8_t *record, uint64_t squares)
{
    uint32_t *words = (uint32_t *)(void *)record;
    const uint64_t old = words[0] | ((uint64_t)words[1] << 32);
    const uint64_t sum = old > UINT64_MAX - squares ? UINT64_MAX : old + squares;
    words[0] = (uint32_t)sum;
    words[1] = (uint32_t)(sum >> 32);
}

void mdy_update_tap(mdy_update_t *u, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    const mdy_conv_t *p = u->layer->p;
    uint8_t *record = mdy_record(u->selected, slot);
    const uint32_t channel = mdy_record_channel(record);
    const uint32_t first = mdy_first_output(p, channel);
    int8_t *delta = mdy_record_delta(record) + tap * p->group_out;
    const int exponent = reduced_exponent(u->exponent);
    uint64_t squares = 0;
    for (uint32_t i = 0; i < p->group_out; i++) {
        const uint32_t o = first + i;
        const int32_t sum = reduce(sums[i]);
        if (sum == 0 || p->rate_mult[o] == 0) {
            continue;
        }
        squares += squared(sum, p->norm_mult, exponent + p->norm_exponent);
        const uint32_t offset = u->layer->op->weight_offset(p, o, tap, channel);
        const int64_t product = (int64_t)sum * (int64_t)(p->rate_mult[o] * u->m->rate_mult);
        const int shift = -(exponent + p->rate_exponent[o] + u->m->rate_exponent);
        const int64_t step = mdy_stochastic_shift(product, shift, mdy_rng(u->key, offset));
        const int64_t value = delta[i] - step;
        const int32_t base = u->weights[offset];
        const int32_t low = base < 0 ? p->w_min - base : -128; /* both D and base + D stay in range */
        const int32_t high = base > 0 ? 127 - base : 127;
        delta[i] = (int8_t)(value < low ? low : value > high ? high : value);
    }
    add_squares(record, squares);
}
