/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/sampler.h"

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/rng.h"
#include "mdy/view.h"

_Static_assert(MDY_RECORD_HEAD == offsetof(mdy_record_t, channel) + sizeof(uint16_t),
               "something behind a record's head");

/* How selections come about; model.h says what each does. */
typedef struct {
    uint8_t keeps_norms; /* they change, and are part of the state */
    void (*draw)(mdy_t *m, uint32_t epoch);
    void (*observe)(mdy_t *m); /* at an epoch's end; NULL: nothing */
} policy_t;

static const policy_t *policy_of(const mdy_model_t *model);

static int bit(const uint8_t *bitmap, uint32_t channel)
{
    return bitmap[channel / 8] >> (channel % 8) & 1;
}

/* N as the model brings it. */
static uint16_t start_norm(const mdy_model_t *model, uint32_t channel)
{
    if (!bit(model->eligible, channel)) {
        return 0;
    }
    return model->norm_start == NULL ? 1 : model->norm_start[channel];
}

static uint32_t norm_of(const mdy_t *m, uint32_t channel)
{
    const int kept = policy_of(m->model)->keeps_norms;
    return mdy_norm_unpack(kept ? m->norms[channel] : start_norm(m->model, channel));
}

static int taken(const mdy_t *m, uint32_t channel)
{
    return bit(m->selection, channel);
}

uint32_t mdy_sampler_norm_bytes(const mdy_model_t *model)
{
    return policy_of(model)->keeps_norms ? 2u * model->channel_count : 0;
}

void mdy_sampler_start(mdy_t *m)
{
    for (uint32_t channel = 0; channel < mdy_sampler_norm_bytes(m->model) / 2; channel++) {
        m->norms[channel] = start_norm(m->model, channel);
    }
}

/* floor(random * total / 2^64) for a random number of 64 bits. */
static uint64_t scale(uint64_t random, uint64_t total)
{
    const uint64_t low = (random & UINT32_MAX) * (total & UINT32_MAX);
    const uint64_t middle = (random >> 32) * (total & UINT32_MAX) + (low >> 32);
    const uint64_t cross = (random & UINT32_MAX) * (total >> 32) + (middle & UINT32_MAX);
    return (random >> 32) * (total >> 32) + (middle >> 32) + (cross >> 32);
}

/* The sum of N over the channels that may be drawn when `left` bytes remain. */
static uint64_t open_total(const mdy_t *m, uint32_t left)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        for (uint32_t c = 0; candidate->record_bytes <= left && c < candidate->channels; c++) {
            const uint32_t channel = candidate->first_channel + c;
            total += taken(m, channel) ? 0 : norm_of(m, channel);
        }
    }
    return total;
}

/* Takes the channel at which the running sum of N passes `point`; returns its cost. */
static uint32_t take(mdy_t *m, uint32_t left, uint64_t point)
{
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        for (uint32_t c = 0; candidate->record_bytes <= left && c < candidate->channels; c++) {
            const uint32_t channel = candidate->first_channel + c;
            if (taken(m, channel)) {
                continue;
            }
            const uint32_t norm = norm_of(m, channel);
            if (point < norm) {
                m->selection[channel / 8] |= (uint8_t)(1u << (channel % 8));
                return candidate->record_bytes;
            }
            point -= norm;
        }
    }
    return 0;
}

/* All that are eligible. */
static void take_all(mdy_t *m, uint32_t epoch)
{
    (void)epoch;
    memcpy(m->selection, m->model->eligible, (m->model->channel_count + 7u) / 8u);
}

/* One after the other, by their norms. */
static void draw_by_norms(mdy_t *m, uint32_t epoch)
{
    const uint32_t key = mdy_rng_key(m->seed, MDY_RNG_SAMPLER, epoch, 0);
    uint32_t left = m->model->epoch_bytes;
    memset(m->selection, 0, (m->model->channel_count + 7u) / 8u);
    for (uint32_t draw = 0;; draw++) {
        const uint64_t total = open_total(m, left);
        if (total == 0) {
            return;
        }
        const uint64_t random = ((uint64_t)mdy_rng(key, 2 * draw) << 32) | mdy_rng(key, 2 * draw + 1);
        left -= take(m, left, scale(random, total));
    }
}

/* Writes what this epoch saw of its channels into N; returns the largest. */
static uint16_t write_observed(mdy_t *m)
{
    uint16_t largest = 1;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        const mdy_selected_t selected = mdy_layer_selected(m, candidate->layer);
        for (uint32_t slot = 0; slot < selected.count; slot++) {
            const uint8_t *record = mdy_record(&selected, slot);
            const uint32_t seen = mdy_isqrt(mdy_record_squares(record));
            uint16_t *norm = &m->norms[candidate->first_channel + mdy_record_channel(record)];
            if (*norm != 0) { /* 0 marks a channel that is never drawn; a drawn one must not become it */
                *norm = mdy_norm_pack(seen > 0 ? seen : 1);
                largest = *norm > largest ? *norm : largest;
            }
        }
    }
    return largest;
}

/* After the first epoch, all that were not seen get the largest norm. */
static void observe_norms(mdy_t *m)
{
    const uint16_t largest = write_observed(m);
    if (m->epochs == 0) {
        for (uint32_t channel = 0; channel < m->model->channel_count; channel++) {
            m->norms[channel] = m->norms[channel] != 0 ? largest : 0;
        }
        (void)write_observed(m);
    }
}

static const policy_t policies[] = {
    [MDY_PROPORTIONAL] = {.keeps_norms = 1, .draw = draw_by_norms, .observe = observe_norms},
    [MDY_UNIFORM] = {.keeps_norms = 0, .draw = draw_by_norms, .observe = NULL},
    [MDY_FIXED] = {.keeps_norms = 0, .draw = take_all, .observe = NULL},
};

static const policy_t *policy_of(const mdy_model_t *model)
{
    return &policies[model->policy];
}

void mdy_sampler_draw(mdy_t *m, uint32_t epoch)
{
    const policy_t *policy = policy_of(m->model);
    policy->draw(m, epoch);
}

void mdy_sampler_observe(mdy_t *m)
{
    const policy_t *policy = policy_of(m->model);
    if (policy->observe != NULL) {
        policy->observe(m);
    }
}

int mdy_sampler_valid(const mdy_t *m)
{
    const mdy_model_t *model = m->model;
    uint64_t bytes = 0;
    for (uint32_t channel = 0; channel < mdy_sampler_norm_bytes(model) / 2; channel++) {
        const uint16_t norm = m->norms[channel];
        if (mdy_norm_pack(mdy_norm_unpack(norm)) != norm || (norm == 0) != (start_norm(model, channel) == 0)) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &model->candidates[i];
        for (uint32_t c = 0; c < candidate->channels; c++) {
            const uint32_t channel = candidate->first_channel + c;
            if (taken(m, channel) && !bit(model->eligible, channel)) {
                return 0;
            }
            bytes += taken(m, channel) ? candidate->record_bytes : 0;
        }
    }
    const uint32_t rest = model->channel_count % 8;
    const int stray = rest != 0 && m->selection[model->channel_count / 8] >> rest != 0;
    return bytes <= model->epoch_bytes && !stray;
}

void mdy_sampler_lay_out(mdy_t *m)
{
    uint32_t offset = 0;
    m->deepest = MDY_FROZEN;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        m->first[i] = offset;
        m->count[i] = 0;
        for (uint32_t c = 0; c < candidate->channels && !m->head_only; c++) {
            if (taken(m, candidate->first_channel + c)) { /* all of them fit, see mdy_sampler_valid */
                mdy_record_clear(m->epoch + offset, candidate->record_bytes, c);
                offset += candidate->record_bytes;
                m->count[i]++;
            }
        }
        if (m->count[i] > 0 && candidate->layer->order < m->deepest) {
            m->deepest = candidate->layer->order;
        }
    }
    for (uint32_t i = 0; i < m->model->bias_layer_count && !m->head_only; i++) {
        const uint16_t order = m->model->biases[i].layer->order;
        m->deepest = order < m->deepest ? order : m->deepest;
    }
}
