/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/head.h"

#include "mdy/fixed.h"
#include "mdy/gradient.h"
#include "mdy/rng.h"
#include "mdy/train.h"

#define LOG2_E_Q16 94548u /* log2(e) in Q16 */

static int32_t *logits_of(const mdy_t *m)
{
    return (int32_t *)(void *)(m->planned + m->model->head->logits);
}

static int16_t *dlogits_of(const mdy_t *m)
{
    return (int16_t *)(void *)(m->planned + m->model->head->dlogits);
}

static const int8_t *features_of(const mdy_t *m)
{
    return (const int8_t *)m->planned + m->model->head->x.offset;
}

static int16_t clamp16(int64_t x)
{
    return (int16_t)(x > INT16_MAX ? INT16_MAX : x < -INT16_MAX ? -INT16_MAX : x);
}

int32_t *mdy_target(mdy_t *m)
{
    const mdy_head_t *head = m->model->head;
    return head == NULL || head->target == MDY_NONE ? NULL : (int32_t *)(void *)(m->planned + head->target);
}

const int32_t *mdy_logits(const mdy_t *m)
{
    return logits_of(m);
}

void mdy_run_head(mdy_t *m, const mdy_head_t *p)
{
    const int8_t *x = features_of(m);
    int32_t *logits = logits_of(m);
    for (uint32_t o = 0; o < p->classes; o++) {
        const int16_t *w = m->head_weight + o * p->features;
        int64_t sum = 0;
        for (uint32_t k = 0; k < p->features; k++) {
            sum += (int64_t)w[k] * (x[k] - p->x_zero);
        }
        const int64_t scaled = p->exponent <= 0 ? mdy_round_shift(sum * p->mult, -p->exponent)
                                                : sum * p->mult * ((int64_t)1 << p->exponent);
        logits[o] = mdy_clamp32(scaled + m->head_bias[o]);
    }
}

/* exp(logit - largest) in Q30. */
static uint32_t exponential(int32_t logit, int32_t largest)
{
    const uint64_t below = (uint64_t)((int64_t)largest - logit);
    const uint64_t octaves = (below * LOG2_E_Q16) >> 16;
    return mdy_exp2_neg(octaves > UINT32_MAX ? UINT32_MAX : (uint32_t)octaves);
}

static uint32_t saturated(uint64_t x)
{
    return x > UINT32_MAX ? UINT32_MAX : (uint32_t)x;
}

static uint32_t squared_error(mdy_t *m)
{
    const mdy_head_t *p = m->model->head;
    const int32_t *logits = logits_of(m);
    const int32_t *target = mdy_target(m);
    int16_t *dlogits = dlogits_of(m);
    uint64_t sum = 0;
    for (uint32_t o = 0; o < p->classes; o++) {
        const int64_t error = (int64_t)logits[o] - target[o];
        const uint64_t size = (uint64_t)(error < 0 ? -error : error);
        dlogits[o] = clamp16(mdy_round_shift(error, p->error_shift));
        sum += (size * size) >> 24; /* Q8: 2^16 squares of 33 bits fit */
    }
    return saturated(((sum << 8) + p->classes / 2u) / p->classes);
}

/* logits[best] is the largest. */
static uint32_t cross_entropy(mdy_t *m, uint32_t label, uint32_t best)
{
    const uint32_t classes = m->model->head->classes;
    const int32_t *logits = logits_of(m);
    uint64_t sum = 0;
    for (uint32_t o = 0; o < classes; o++) {
        sum += exponential(logits[o], logits[best]);
    }
    int16_t *dlogits = dlogits_of(m);
    for (uint32_t o = 0; o < classes; o++) {
        const uint64_t share = ((uint64_t)exponential(logits[o], logits[best]) << 15) + sum / 2;
        const int32_t value = (int32_t)(share / sum) - (o == label ? 32768 : 0);
        dlogits[o] = (int16_t)(value > INT16_MAX ? INT16_MAX : value);
    }
    const int64_t below = (int64_t)logits[best] - logits[label];
    const int64_t loss = below + mdy_ln_q30(sum);
    return loss < 0 ? 0 : saturated((uint64_t)loss);
}

void mdy_head_loss(mdy_t *m, uint16_t label, mdy_result_t *result)
{
    const mdy_head_t *p = m->model->head;
    const int32_t *logits = logits_of(m);
    uint32_t best = 0;
    for (uint32_t o = 1; o < p->classes; o++) {
        best = logits[o] > logits[best] ? o : best;
    }
    result->prediction = (uint16_t)best;
    result->loss = 0;
    if (label < p->classes) {
        result->loss = p->loss == MDY_SQUARED_ERROR ? squared_error(m) : cross_entropy(m, label, best);
    }
}

uint32_t mdy_head_reference(const mdy_t *m)
{
    const int16_t *dlogits = dlogits_of(m);
    int32_t largest = 0;
    for (uint32_t o = 0; o < m->model->head->classes; o++) {
        const int32_t magnitude = dlogits[o] < 0 ? -dlogits[o] : dlogits[o];
        largest = magnitude > largest ? magnitude : largest;
    }
    return (uint32_t)largest;
}

void mdy_head_backward(mdy_t *m)
{
    const mdy_head_t *p = m->model->head;
    const int16_t *dlogits = dlogits_of(m);
    const uint32_t channels = p->dx.shape.c;
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, &p->dx, NULL, p->scratch, p->grad_exponent, 0);
    for (uint32_t k = 0; k < p->features; k += channels) {
        int32_t *acc = mdy_sink_begin(&sink);
        for (uint32_t c = 0; c < channels; c++) {
            const int16_t *w = m->head_weight + k + c;
            int64_t sum = 0;
            for (uint32_t o = 0; o < p->classes; o++) {
                sum += (int64_t)w[o * p->features] * dlogits[o];
            }
            acc[c] += (int32_t)mdy_round_shift(sum, p->sum_shift);
        }
        const uint32_t pixel = k / channels;
        mdy_sink_end(&sink, (int32_t)(pixel / p->dx.shape.w), (int32_t)(pixel % p->dx.shape.w));
    }
    mdy_sink_close(&sink);
}

void mdy_head_update(mdy_t *m)
{
    const mdy_head_t *p = m->model->head;
    const int8_t *x = features_of(m);
    const int16_t *dlogits = dlogits_of(m);
    const uint32_t key = mdy_rng_key(m->seed, MDY_RNG_HEAD, m->steps, 0);
    const uint32_t bias_key = mdy_rng_key(m->seed, MDY_RNG_HEAD, m->steps, 1);
    const int64_t rate = (int64_t)m->rate_mult * p->rate_mult;
    const int shift = -(p->rate_exponent + m->rate_exponent);
    for (uint32_t o = 0; o < p->classes; o++) {
        if (dlogits[o] == 0) {
            continue;
        }
        int16_t *w = m->head_weight + o * p->features;
        for (uint32_t k = 0; k < p->features; k++) {
            const int32_t gradient = dlogits[o] * (x[k] - p->x_zero);
            if (gradient != 0) {
                const uint32_t random = mdy_rng(key, o * p->features + k);
                w[k] = clamp16((int64_t)w[k] - mdy_stochastic_shift(gradient * rate, shift, random));
            }
        }
        const int32_t step =
            mdy_stochastic_shift((int64_t)dlogits[o] * (int64_t)m->rate_mult * p->bias_mult,
                                 -(p->bias_exponent + m->rate_exponent), mdy_rng(bias_key, o));
        m->head_bias[o] = mdy_clamp32((int64_t)m->head_bias[o] - step);
    }
}
