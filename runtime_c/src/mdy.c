/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/mdy.h"

#include <string.h>

#include "mdy/crc.h"
#include "mdy/fixed.h"
#include "mdy/generation.h"
#include "mdy/head.h"
#include "mdy/rng.h"
#include "mdy/sampler.h"
#include "mdy/schedule.h"
#include "mdy/store.h"
#include "mdy/stream.h"
#include "mdy/update.h"
#include "mdy/view.h"

/* An array of the state region. */
static void *array(const mdy_t *m, uint32_t offset)
{
    return offset == MDY_NONE ? NULL : m->state + offset;
}

static void lay_out_state(mdy_t *m)
{
    const mdy_state_t *at = &m->model->state;
    m->head_weight = array(m, at->head_weight);
    m->head_bias = array(m, at->head_bias);
    m->norms = array(m, at->norms);
    m->slot_r = array(m, at->slot_r);
    m->selection = array(m, at->selection);
    m->biases = array(m, at->biases);
    m->slot_e = array(m, at->slot_e);
    m->first = array(m, at->first);
    m->count = array(m, at->count);
    m->head_index = array(m, at->head_index);
    m->held_dlogits = array(m, at->held_dlogits);
    m->held_features = array(m, at->held_features);
    m->ram_weights = array(m, at->weights);
    m->saved_bytes = at->saved_bytes;
}

static void factory_state(mdy_t *m)
{
    const mdy_model_t *model = m->model;
    const mdy_head_t *head = model->head;
    memset(m->state, 0, model->state.bytes);
    if (head != NULL && head->weight != NULL && head->columns == 0) {
        memcpy(m->head_weight, head->weight, 2u * head->classes * head->features);
    }
    if (head != NULL && head->bias != NULL) {
        memcpy(m->head_bias, head->bias, 4u * head->classes);
    }
    for (uint32_t i = 0; i < model->bias_layer_count; i++) {
        const mdy_conv_t *p = model->biases[i].layer->p;
        memcpy(m->biases + model->biases[i].first, p->bias, p->out.c * sizeof *p->bias);
    }
    mdy_sampler_start(m);
    memcpy(m->slot_r, model->exponent_start, 2u * model->slot_count);
    for (uint32_t i = 0; i < model->candidate_count && model->weights_in_ram; i++) {
        const mdy_candidate_t *candidate = &model->candidates[i];
        memcpy(m->ram_weights + candidate->bank_offset, candidate->layer->weight, candidate->layer->weight_bytes);
    }
    m->weights = m->ram_weights;
    mdy_sampler_draw(m, 0);
}

/* The selection's digest grows with every selection that is laid out. */
static void lay_out_selection(mdy_t *m)
{
    mdy_sampler_lay_out(m);
    mdy_head_lay_out(m);
    m->selection_crc = mdy_crc32(m->selection_crc, m->selection, (m->model->channel_count + 7u) / 8u);
}

static int region_fits(const mdy_region_t *region, uint32_t bytes)
{
    return region->at != NULL && (uintptr_t)region->at % 8u == 0 && region->bytes >= bytes;
}

mdy_status_t mdy_init(mdy_t *m, const mdy_model_t *model, const mdy_memory_t *memory, const mdy_config_t *config)
{
    if (model->batch_log2 > MDY_BATCH_LOG2_MAX) {
        return MDY_MODEL;
    }
    if (!region_fits(&memory->planned, model->planned_bytes) || !region_fits(&memory->epoch, model->epoch_bytes) ||
        !region_fits(&memory->state, model->state.bytes)) {
        return MDY_ARENA;
    }
    if ((config->flash == NULL && !model->weights_in_ram) || !mdy_schedule_valid(&config->schedule) ||
        config->shift > MDY_SHIFT_MAX || config->smoothing > MDY_SMOOTHING_MAX ||
        (mdy_by_rows(model) && config->load == NULL)) {
        return MDY_ARGUMENT;
    }
    memset(m, 0, sizeof *m);
    m->model = model;
    m->flash = config->flash;
    m->planned = memory->planned.at;
    m->epoch = memory->epoch.at;
    m->state = memory->state.at;
    m->schedule = config->schedule;
    m->seed = config->seed;
    m->head_only = config->head_only != 0;
    m->flip = config->flip != 0;
    m->shift = config->shift;
    m->smoothing = config->smoothing;
    m->fault = MDY_NONE;
    m->yield = config->yield;
    m->yield_context = config->yield_context;
    m->load = config->load;
    m->load_context = config->load_context;
    lay_out_state(m);
    mdy_status_t status = model->weights_in_ram ? MDY_EMPTY : mdy_store_open(m);
    if (status == MDY_OK) {
        status = config->fresh ? MDY_EMPTY : mdy_store_load(m);
    }
    if (status == MDY_EMPTY) {
        factory_state(m);
        status = MDY_OK;
    }
    if (status == MDY_OK) {
        lay_out_selection(m);
    }
    return status;
}

int8_t *mdy_input(mdy_t *m)
{
    return mdy_by_rows(m->model) ? NULL : (int8_t *)m->planned + m->model->input.offset;
}

const int8_t *mdy_output(const mdy_t *m)
{
    return (const int8_t *)m->planned + m->model->output.offset;
}

mdy_status_t mdy_infer(mdy_t *m, uint16_t label, mdy_result_t *result)
{
    m->aborted = 0;
    m->training = 0;
    m->flipped = 0;
    m->down = 0;
    m->right = 0;
    m->model->forward(m);
    if (m->aborted) {
        return MDY_ABORTED;
    }
    if (m->model->head != NULL) {
        mdy_head_loss(m, label, result);
        return MDY_OK;
    }
    const int8_t *values = mdy_output(m);
    uint32_t best = 0;
    for (uint32_t i = 1; i < mdy_tensor_bytes(&m->model->output); i++) {
        best = values[i] > values[best] ? i : best;
    }
    result->loss = 0;
    result->prediction = (uint16_t)best;
    return MDY_OK;
}

/* The running digest of what the training saw. */
static void digest_step(mdy_t *m, const mdy_result_t *result)
{
    const int32_t *logits = mdy_logits(m);
    m->loss_crc = mdy_crc32_word(m->loss_crc, result->loss);
    m->loss_crc = mdy_crc32_word(m->loss_crc, result->prediction);
    for (uint32_t o = 0; o < mdy_classes(m->model); o++) {
        m->loss_crc = mdy_crc32_word(m->loss_crc, (uint32_t)logits[o]);
    }
}

/* Ends a batch: the update that its samples' gradients add up to. */
static void settle(mdy_t *m)
{
    if (m->model->batch_log2 == 0) {
        return;
    }
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_layer_t *layer = m->model->candidates[i].layer;
        const mdy_selected_t selected = mdy_layer_selected(m, layer);
        (void)mdy_go_on(m); /* the update is whole all the same */
        mdy_update_t update = {
            .m = m,
            .layer = layer,
            .selected = &selected,
            .weights = mdy_layer_weights(m, layer),
            .key = mdy_rng_key(m->seed, MDY_RNG_BATCH, m->steps, layer->order),
            .rate_mult = m->rate_mult,
            .rate_exponent = m->rate_exponent + m->model->batch_log2,
        };
        m->model->optimizer->batch(&update);
    }
    mdy_head_settle(m);
}

/* -most .. most, each as likely. */
static int8_t drawn(uint32_t random, uint32_t most)
{
    return (int8_t)((int32_t)(((uint64_t)random * (2u * most + 1u)) >> 32) - (int32_t)most);
}

/* How this step's sample is changed: it stays at least half inside. */
static void augment(mdy_t *m)
{
    const mdy_shape_t shape = m->model->input.shape;
    const uint32_t key = mdy_rng_key(m->seed, MDY_RNG_SHIFT, m->steps, 0);
    m->flipped = m->flip && (mdy_rng(mdy_rng_key(m->seed, MDY_RNG_FLIP, m->steps, 0), 0) & 1u) != 0;
    m->down = drawn(mdy_rng(key, 0), m->shift < shape.h / 2u ? m->shift : shape.h / 2u);
    m->right = drawn(mdy_rng(key, 1), m->shift < shape.w / 2u ? m->shift : shape.w / 2u);
    if ((m->flipped || m->down != 0 || m->right != 0) && !mdy_by_rows(m->model)) {
        mdy_load(m, &m->model->input, MDY_ALL);
    }
}

mdy_status_t mdy_train_step(mdy_t *m, uint16_t label, mdy_result_t *result)
{
    if (label >= mdy_classes(m->model) || m->schedule.rate_mult == 0) { /* a rate of 0 is that of inference */
        return MDY_ARGUMENT;
    }
    m->aborted = 0;
    m->training = MDY_FORWARD;
    mdy_schedule_step(m);
    augment(m);
    m->model->forward(m);
    if (!m->aborted) {
        mdy_head_loss(m, label, result);
        digest_step(m, result);
        const uint32_t largest = mdy_head_reference(m);
        if (largest > 0) { /* a certain and right answer teaches nothing */
            m->reference = mdy_log2_16(largest) + 1 - 16 * 15;
            if (m->deepest != MDY_FROZEN) {
                mdy_head_backward(m);
            }
            mdy_head_update(m);
            m->training = MDY_BACKWARD;
            m->model->backward(m);
        }
        if (((m->epoch_step + 1) & mdy_batch_rest(m->model)) == 0) {
            settle(m);
        }
        m->steps = mdy_count(m->steps);
        m->epoch_step++;
        if (m->epoch_step == 0) {
            m->epoch_step -= mdy_batch_rest(m->model) + 1; /* stays in the last batch that can be counted */
        }
    }
    m->training = 0;
    return m->aborted ? MDY_ABORTED : MDY_OK;
}

void mdy_try_epoch(mdy_t *m)
{
    settle(m); /* a batch that the epoch leaves short */
}

mdy_status_t mdy_reject(mdy_t *m)
{
    mdy_status_t status = m->model->weights_in_ram ? MDY_ARGUMENT : mdy_store_reload(m);
    if (status == MDY_EMPTY) {
        factory_state(m);
        m->epochs = 0;
        m->steps = 0;
        status = MDY_OK;
    }
    if (status == MDY_OK) {
        m->epoch_step = 0;
        lay_out_selection(m);
    }
    return status;
}

mdy_status_t mdy_end_epoch(mdy_t *m)
{
    mdy_try_epoch(m);
    return mdy_accept(m);
}

mdy_status_t mdy_accept(mdy_t *m)
{
    mdy_sampler_observe(m);
    mdy_sampler_draw(m, mdy_count(m->epochs));
    if (m->model->weights_in_ram) {
        mdy_generation_merge(m);
    } else {
        const mdy_status_t status = mdy_store_commit(m);
        if (status != MDY_OK) {
            return status;
        }
    }
    m->epochs = mdy_count(m->epochs);
    m->epoch_step = 0;
    lay_out_selection(m);
    return MDY_OK;
}

mdy_status_t mdy_roll_back(mdy_t *m)
{
    return m->model->weights_in_ram ? MDY_EMPTY : mdy_store_roll_back(m);
}

mdy_status_t mdy_factory_reset(mdy_t *m, int wipe)
{
    const mdy_status_t status = m->model->weights_in_ram ? MDY_OK : mdy_store_reset(m, wipe);
    if (wipe) {
        memset(m->planned, 0, m->model->planned_bytes);
        memset(m->epoch, 0, m->model->epoch_bytes);
        memset(m->state, 0, m->model->state.bytes);
    }
    return status;
}

mdy_status_t mdy_force_selection(mdy_t *m, const uint16_t *counts)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        if (counts[i] > m->model->candidates[i].channels) {
            return MDY_ARGUMENT;
        }
        bytes += (uint64_t)counts[i] * m->model->candidates[i].record_bytes;
    }
    if (bytes > m->model->epoch_bytes) {
        return MDY_ARENA;
    }
    memset(m->selection, 0, (m->model->channel_count + 7u) / 8u);
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        for (uint32_t c = 0; c < counts[i]; c++) {
            const uint32_t channel = m->model->candidates[i].first_channel + c;
            m->selection[channel / 8] |= (uint8_t)(1u << (channel % 8));
        }
    }
    lay_out_selection(m);
    return MDY_OK;
}
