/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/generation.h"

#include <string.h>

#include "mdy/head.h"
#include "mdy/sampler.h"
#include "mdy/schedule.h"

/*
 * Words of the body. New ones are added at the end, and 0 of each has to mean what a runtime does that does not know it:
 * of a shorter body the missing words are 0; a longer one is of a newer format if it has anything there.
 */
enum {
    B_STEPS,
    B_SEED,
    B_RATE_MULT,
    B_RATE_EXPONENT,
    B_COSINE,
    B_WARMUP_STEPS,
    B_TOTAL_STEPS,
    B_CLIP,
    B_FLAGS, /* bit 0 head only, bit 1 flips */
    B_SHIFT,
    B_SMOOTHING,
    B_WORDS
};

_Static_assert(4u * B_WORDS == MDY_STORE_BODY_BYTES, "a body of other settings");

uint32_t mdy_generation_bytes(const mdy_t *m)
{
    return m->saved_bytes + m->model->bank_weight_bytes;
}

static mdy_schedule_t schedule_of(const uint32_t *body)
{
    const mdy_schedule_t schedule = {
        .rate_mult = body[B_RATE_MULT],
        .rate_exponent = (int32_t)body[B_RATE_EXPONENT],
        .cosine = body[B_COSINE],
        .warmup_steps = body[B_WARMUP_STEPS],
        .total_steps = body[B_TOTAL_STEPS],
        .clip = (uint16_t)body[B_CLIP],
    };
    return schedule;
}

uint8_t mdy_generation_body(const mdy_page_t *page)
{
    for (uint32_t word = B_WORDS; word < MDY_STORE_PAGE / 4u; word++) {
        if (page->words[word] != 0) {
            return MDY_BANK_FORMAT;
        }
    }
    const uint32_t *body = page->words;
    const mdy_schedule_t schedule = schedule_of(body);
    const int possible = mdy_schedule_valid(&schedule) && body[B_COSINE] <= 1 && body[B_CLIP] <= UINT16_MAX &&
                         body[B_FLAGS] <= 3 && body[B_SHIFT] <= MDY_SHIFT_MAX && body[B_SMOOTHING] <= MDY_SMOOTHING_MAX;
    return possible ? MDY_BANK_USABLE : MDY_BANK_DAMAGED;
}

void mdy_generation_take_body(mdy_t *m, const uint32_t *body)
{
    m->steps = body[B_STEPS];
    m->seed = body[B_SEED];
    m->schedule = schedule_of(body);
    m->head_only = body[B_FLAGS] & 1u;
    m->flip = body[B_FLAGS] >> 1 & 1u;
    m->shift = (uint8_t)body[B_SHIFT];
    m->smoothing = (uint8_t)body[B_SMOOTHING];
}

void mdy_generation_fill_body(const mdy_t *m, uint32_t *body)
{
    body[B_STEPS] = m->steps;
    body[B_SEED] = m->seed;
    body[B_RATE_MULT] = m->schedule.rate_mult;
    body[B_RATE_EXPONENT] = (uint32_t)m->schedule.rate_exponent;
    body[B_COSINE] = m->schedule.cosine != 0;
    body[B_WARMUP_STEPS] = m->schedule.warmup_steps;
    body[B_TOTAL_STEPS] = m->schedule.total_steps;
    body[B_CLIP] = m->schedule.clip;
    body[B_FLAGS] = (uint32_t)m->head_only | (uint32_t)m->flip << 1;
    body[B_SHIFT] = m->shift;
    body[B_SMOOTHING] = m->smoothing;
}

int mdy_generation_state_valid(const mdy_t *m)
{
    for (uint32_t i = 0; i < m->model->bias_layer_count; i++) {
        const mdy_biases_t *biases = &m->model->biases[i];
        for (uint32_t o = 0; o < biases->layer->p->out.c; o++) {
            const int32_t bias = m->biases[biases->first + o];
            if (bias < -biases->most || bias > biases->most) {
                return 0;
            }
        }
    }
    return mdy_sampler_valid(m);
}

/* Adds the deltas to a part of a candidate layer's weights; the factory's are brought, others lie there already. */
static void fill_weights(const mdy_t *m, const mdy_layer_t *layer, uint32_t start, uint32_t n, uint8_t *page)
{
    const mdy_conv_t *p = layer->p;
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w;
    if (m->weights == NULL) {
        memcpy(page, layer->weight + start, n);
    }
    for (uint32_t slot = 0; slot < selected.count; slot++) {
        uint8_t *record = mdy_record(&selected, slot);
        const uint32_t channel = mdy_record_channel(record);
        const int8_t *delta = mdy_record_delta(record);
        for (uint32_t i = 0; i < taps * p->group_out; i++) {
            const uint32_t o = mdy_first_output(p, channel) + i % p->group_out;
            const uint32_t offset = layer->op->weight_offset(p, o, i / p->group_out, channel);
            if (offset >= start && offset - start < n) {
                page[offset - start] = (uint8_t)(page[offset - start] + (uint8_t)delta[i]);
            }
        }
    }
}

void mdy_generation_fill(const mdy_t *m, uint32_t start, uint32_t n, uint8_t *page)
{
    if (start < m->saved_bytes) {
        const uint32_t part = m->saved_bytes - start < n ? m->saved_bytes - start : n;
        memcpy(page, m->state + start, part);
        start += part;
        page += part;
        n -= part;
    }
    const uint32_t head = m->model->head == NULL ? 0 : m->model->head->bank_bytes;
    if (n > 0 && start < m->saved_bytes + head) {
        const uint32_t left = m->saved_bytes + head - start;
        const uint32_t part = left < n ? left : n;
        mdy_head_fill(m, start - m->saved_bytes, part, page);
        start += part;
        page += part;
        n -= part;
    }
    for (uint32_t i = 0; i < m->model->candidate_count && n > 0; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        const uint32_t first = m->saved_bytes + candidate->bank_offset;
        if (start >= first && start < first + candidate->layer->weight_bytes) {
            const uint32_t left = first + candidate->layer->weight_bytes - start;
            const uint32_t part = left < n ? left : n;
            fill_weights(m, candidate->layer, start - first, part, page);
            start += part;
            page += part;
            n -= part;
        }
    }
}

void mdy_generation_merge(mdy_t *m)
{
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        fill_weights(m, candidate->layer, 0, candidate->layer->weight_bytes, m->ram_weights + candidate->bank_offset);
    }
}
