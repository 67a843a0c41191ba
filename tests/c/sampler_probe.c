/* SPDX-License-Identifier: Apache-2.0 */
/* The channel sampler on candidate layers that a test makes up: what the tests call through ctypes. */
#include <string.h>

#include "mdy/fixed.h"
#include "mdy/sampler.h"

#define LAYERS_MAX 64
#define CHANNELS_MAX 4096
#define EPOCH_MAX (1u << 20)

typedef struct {
    uint32_t layers;
    const uint16_t *channels;
    const uint32_t *record_bytes;
    uint32_t budget;
    uint32_t policy;
    const uint8_t *eligible;
    const uint16_t *norm_start;
} sampler_case_t;

static const mdy_conv_t p;
static mdy_layer_t layers[LAYERS_MAX];
static mdy_candidate_t candidates[LAYERS_MAX];
static mdy_model_t model;
static mdy_t net;

static _Alignas(8) uint8_t epoch_region[EPOCH_MAX];
static uint16_t norms[CHANNELS_MAX];
static uint8_t selection[CHANNELS_MAX / 8];
static uint32_t first[LAYERS_MAX];
static uint16_t count[LAYERS_MAX];

int sampler_probe_set(const sampler_case_t *c)
{
    uint32_t channel = 0;
    if (c->layers > LAYERS_MAX || c->budget > EPOCH_MAX) {
        return -1;
    }
    memset(&net, 0, sizeof net);
    for (uint32_t i = 0; i < c->layers; i++) {
        layers[i] = (mdy_layer_t){.p = &p, .order = (uint16_t)i, .candidate = (uint16_t)i, .bias = MDY_FROZEN};
        candidates[i] = (mdy_candidate_t){
            .layer = &layers[i],
            .record_bytes = c->record_bytes[i],
            .channels = c->channels[i],
            .first_channel = (uint16_t)channel,
        };
        channel += c->channels[i];
    }
    if (channel > CHANNELS_MAX) {
        return -1;
    }
    model = (mdy_model_t){
        .candidates = candidates,
        .candidate_count = (uint16_t)c->layers,
        .channel_count = (uint16_t)channel,
        .epoch_bytes = c->budget,
        .policy = (uint8_t)c->policy,
        .eligible = c->eligible,
        .norm_start = c->norm_start,
    };
    net.model = &model;
    net.epoch = epoch_region;
    net.norms = norms;
    net.selection = selection;
    net.first = first;
    net.count = count;
    return 0;
}

static void put(const uint32_t *given)
{
    for (uint32_t i = 0; i < mdy_sampler_norm_bytes(&model) / 2; i++) {
        norms[i] = mdy_norm_pack(given[i]);
    }
}

uint32_t sampler_probe_kept(uint32_t norm)
{
    return mdy_norm_unpack(mdy_norm_pack(norm));
}

void sampler_probe_draw(const uint32_t *given, uint32_t seed, uint32_t epoch, uint8_t *drawn)
{
    put(given);
    net.seed = seed;
    mdy_sampler_draw(&net, epoch);
    memcpy(drawn, selection, (model.channel_count + 7u) / 8u);
}

/* One epoch: the records of `drawn` are given their sums of squares (one per candidate channel). */
void sampler_probe_observe(uint32_t *n, const uint8_t *drawn, const uint64_t *squares, uint32_t epochs)
{
    put(n);
    memcpy(selection, drawn, (model.channel_count + 7u) / 8u);
    net.epochs = epochs;
    mdy_sampler_lay_out(&net);
    for (uint32_t i = 0; i < model.candidate_count; i++) {
        for (uint32_t slot = 0; slot < count[i]; slot++) {
            uint8_t *record = epoch_region + first[i] + slot * candidates[i].record_bytes;
            const uint32_t channel = candidates[i].first_channel + mdy_record_channel(record);
            memcpy(record, &squares[channel], sizeof *squares);
        }
    }
    mdy_sampler_observe(&net);
    for (uint32_t i = 0; i < mdy_sampler_norm_bytes(&model) / 2; i++) {
        n[i] = mdy_norm_unpack(norms[i]);
    }
}
