/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/head.h"

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/gradient.h"
#include "mdy/rng.h"
#include "mdy/view.h"

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

int32_t *mdy_target(mdy_t *m)
{
    const mdy_head_t *head = m->model->head;
    return head == NULL || head->target == MDY_NONE ? NULL : (int32_t *)(void *)(m->planned + head->target);
}

const int32_t *mdy_logits(const mdy_t *m)
{
    return logits_of(m);
}

/* The weights of a sampled head that this epoch leaves as they are: (classes, features), or NULL: zeros. */
static const int16_t *base_of(const mdy_t *m)
{
    return m->weights == NULL ? m->model->head->weight : (const int16_t *)(const void *)m->weights;
}

static int16_t base_weight(const int16_t *base, const mdy_head_t *p, uint32_t o, uint32_t k)
{
    return base == NULL ? 0 : base[o * p->features + k];
}

/* Clears the samples held; an update by a gradient of zeros is none. */
static void let_go(mdy_t *m)
{
    if (m->held_dlogits != NULL) {
        memset(m->held_dlogits, 0, (mdy_classes(m->model) * sizeof *m->held_dlogits) << m->model->batch_log2);
    }
}

void mdy_head_lay_out(mdy_t *m)
{
    const mdy_head_t *p = m->model->head;
    const uint32_t columns = p == NULL ? 0 : p->columns;
    const uint32_t key = mdy_rng_key(m->seed, MDY_RNG_COLUMNS, m->epochs, 0);
    let_go(m);
    const int16_t *base = columns == 0 ? NULL : base_of(m);
    uint32_t found = 0;
    for (uint32_t k = 0; found < columns; k++) { /* selection sampling: each k with (left to find) / (left to see) */
        if (((uint64_t)mdy_rng(key, k) * (p->features - k)) >> 32 >= columns - found) {
            continue;
        }
        m->head_index[found] = (uint16_t)k;
        for (uint32_t o = 0; o < p->classes; o++) {
            m->head_weight[found * p->classes + o] = base_weight(base, p, o, k);
        }
        found++;
    }
}

void mdy_head_fill(const mdy_t *m, uint32_t start, uint32_t n, uint8_t *page)
{
    const mdy_head_t *p = m->model->head;
    const uint32_t bytes = 2u * p->classes * p->features;
    if (m->weights == NULL) {
        memset(page, 0, n);
        if (p->weight != NULL && start < bytes) {
            memcpy(page, (const uint8_t *)p->weight + start, bytes - start < n ? bytes - start : n);
        }
    }
    for (uint32_t j = 0; j < p->columns; j++) {
        for (uint32_t o = 0; o < p->classes; o++) {
            const uint32_t offset = 2u * (o * p->features + m->head_index[j]);
            if (offset >= start && offset - start < n) {
                memcpy(page + offset - start, &m->head_weight[j * p->classes + o], 2);
            }
        }
    }
}

/* What the trained columns of a sampled head add to an output beyond its base. */
static int64_t column_sum(const mdy_t *m, const mdy_head_t *p, const int16_t *base, const int8_t *x, uint32_t o)
{
    int64_t sum = 0;
    for (uint32_t j = 0; j < p->columns; j++) {
        const uint32_t k = m->head_index[j];
        const int32_t change = m->head_weight[j * p->classes + o] - base_weight(base, p, o, k);
        sum += (int64_t)change * (x[k] - p->x_zero);
    }
    return sum;
}

void mdy_run_head(mdy_t *m, const mdy_head_t *p)
{
    const int16_t *weights = p->columns == 0 ? m->head_weight : base_of(m);
    const int8_t *x = features_of(m);
    int32_t *logits = logits_of(m);
    for (uint32_t o = 0; o < p->classes; o++) {
        int64_t sum = column_sum(m, p, weights, x, o);
        for (uint32_t k = 0; weights != NULL && k < p->features; k++) {
            sum += (int64_t)weights[o * p->features + k] * (x[k] - p->x_zero);
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
        dlogits[o] = mdy_clamp16(mdy_round_shift(error, p->error_shift));
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
    const uint32_t spread = m->smoothing * 128u; /* of the label's 2^15 */
    const int32_t each = (int32_t)((spread + classes / 2u) / classes);
    for (uint32_t o = 0; o < classes; o++) {
        const uint64_t share = ((uint64_t)exponential(logits[o], logits[best]) << 15) + sum / 2;
        const int32_t target = (o == label ? 32768 - (int32_t)spread : 0) + each;
        const int32_t value = (int32_t)(share / sum) - target;
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
    const int16_t *weights = p->columns == 0 ? m->head_weight : base_of(m);
    uint32_t next = 0; /* column whose feature is not reached yet */
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, &p->dx, NULL, p->scratch, p->grad_exponent, 0);
    for (uint32_t k = 0; k < p->features; k += channels) {
        int32_t *acc = mdy_sink_begin(&sink);
        for (uint32_t c = 0; c < channels; c++) {
            const int trained = next < p->columns && m->head_index[next] == k + c;
            const int16_t *w = trained ? m->head_weight + next * p->classes : weights == NULL ? NULL : weights + k + c;
            const uint32_t stride = trained ? 1 : p->features;
            next += trained ? 1u : 0u;
            int64_t sum = 0;
            for (uint32_t o = 0; w != NULL && o < p->classes; o++) {
                sum += (int64_t)w[o * stride] * dlogits[o];
            }
            acc[c] += (int32_t)mdy_round_shift(sum, p->sum_shift);
        }
        const uint32_t pixel = k / channels;
        mdy_sink_end(&sink, (int32_t)(pixel / p->dx.shape.w), (int32_t)(pixel % p->dx.shape.w));
    }
    mdy_sink_close(&sink);
}

/* The update of a weight, of which a gradient takes `step`. */
static inline int16_t changed(int16_t w, int32_t step)
{
    return mdy_clamp16((int64_t)w - step);
}

/* A sample's update of one output's weights. */
static void learn_output(mdy_t *m, const int8_t *x, int32_t dlogit, uint32_t key, uint32_t o)
{
    const mdy_head_t *p = m->model->head;
    const int64_t rate = (int64_t)m->rate_mult * p->rate_mult;
    const int shift = -(p->rate_exponent + m->rate_exponent);
    const int32_t x_zero = p->x_zero;
    const uint32_t features = p->features;
    int16_t *weights = m->head_weight + o * features;
    for (uint32_t k = 0; k < features; k++) {
        const int32_t gradient = dlogit * (x[k] - x_zero);
        if (gradient != 0) {
            const uint32_t random = mdy_rng(key, o * features + k);
            weights[k] = changed(weights[k], mdy_stochastic_shift(gradient * rate, shift, random));
        }
    }
}

/* The same where some columns are trained. */
static void learn_columns(mdy_t *m, const int8_t *x, int32_t dlogit, uint32_t key, uint32_t o)
{
    const mdy_head_t *p = m->model->head;
    const int64_t rate = (int64_t)m->rate_mult * p->rate_mult;
    const int shift = -(p->rate_exponent + m->rate_exponent);
    for (uint32_t i = 0; i < p->columns; i++) {
        const uint32_t k = m->head_index[i];
        int16_t *w = m->head_weight + i * p->classes + o;
        const int32_t gradient = dlogit * (x[k] - p->x_zero);
        if (gradient != 0) {
            *w = changed(*w, mdy_stochastic_shift(gradient * rate, shift, mdy_rng(key, o * p->features + k)));
        }
    }
}

/* One sample's update, the `number`th of this step. */
static void learn(mdy_t *m, const int8_t *x, const int16_t *dlogits, uint32_t number)
{
    const mdy_head_t *p = m->model->head;
    const uint32_t key = mdy_rng_key(m->seed, MDY_RNG_HEAD, m->steps, 2 * number);
    const uint32_t bias_key = mdy_rng_key(m->seed, MDY_RNG_HEAD, m->steps, 2 * number + 1);
    for (uint32_t o = 0; o < p->classes; o++) {
        if (dlogits[o] == 0) {
            continue;
        }
        if (p->columns == 0) {
            learn_output(m, x, dlogits[o], key, o);
        } else {
            learn_columns(m, x, dlogits[o], key, o);
        }
        const int32_t step = mdy_stochastic_shift((int64_t)dlogits[o] * (int64_t)m->rate_mult * p->bias_mult,
                                                  -(p->bias_exponent + m->rate_exponent), mdy_rng(bias_key, o));
        m->head_bias[o] = mdy_clamp32((int64_t)m->head_bias[o] - step);
    }
}

void mdy_head_update(mdy_t *m)
{
    const mdy_head_t *p = m->model->head;
    const uint32_t number = m->epoch_step & mdy_batch_rest(m->model);
    if (m->model->batch_log2 == 0) {
        learn(m, features_of(m), dlogits_of(m), 0);
        return;
    }
    memcpy(m->held_features + number * p->features, features_of(m), p->features);
    memcpy(m->held_dlogits + number * p->classes, dlogits_of(m), p->classes * sizeof *m->held_dlogits);
}

void mdy_head_settle(mdy_t *m)
{
    const mdy_head_t *p = m->model->head;
    for (uint32_t number = 0; number <= mdy_batch_rest(m->model); number++) {
        (void)mdy_go_on(m);
        learn(m, m->held_features + number * p->features, m->held_dlogits + number * p->classes, number);
    }
    let_go(m);
}
