/* SPDX-License-Identifier: Apache-2.0 */
/* The generated model as a library: what the tests call through ctypes. */
#include <string.h>

#include "mdy/crc.h"
#include "mdy/mdy.h"
#include "mdy/view.h"
#include "mdy_model.h"

mdy_t probe_net;

static uint8_t flash_bytes[16 << 20];
static const mdy_flash_run_t runs[] = {{sizeof flash_bytes / 4096, 4096}};
static const mdy_flash_geometry_t geometry = {runs, 1, 8};

static mdy_status_t read_flash(void *context, uint32_t address, void *dst, uint32_t n)
{
    (void)context;
    memcpy(dst, flash_bytes + address, n);
    return MDY_OK;
}

static mdy_status_t erase_sector(void *context, uint32_t address)
{
    (void)context;
    memset(flash_bytes + address, 0xff, 4096);
    return MDY_OK;
}

static mdy_status_t program(void *context, uint32_t address, const void *src, uint32_t n)
{
    (void)context;
    memcpy(flash_bytes + address, src, n);
    return MDY_OK;
}

static const uint8_t *map(void *context)
{
    (void)context;
    return flash_bytes;
}

static const mdy_flash_t flash = {&geometry, NULL, read_flash, erase_sector, program, map};

static const int8_t *rows; /* of the sample at hand */

static int load(void *context, uint16_t row, int8_t *values)
{
    (void)context;
    const uint32_t bytes = (uint32_t)mdy_model.input.shape.w * mdy_model.input.shape.c;
    memcpy(values, rows + row * bytes, bytes);
    return 0;
}

static void give(const int8_t *sample)
{
    rows = sample;
    if (mdy_input(&probe_net) != NULL) {
        memcpy(mdy_input(&probe_net), sample, MDY_MODEL_INPUT_BYTES);
    }
}

int probe_init(uint32_t seed, int rate_mult, int rate_exponent, uint32_t clip)
{
    const mdy_config_t config = {
        .flash = &flash,
        .seed = seed,
        .schedule = {.rate_mult = (uint32_t)rate_mult, .rate_exponent = rate_exponent, .clip = (uint16_t)clip},
        .fresh = 1,
        .load = load,
    };
    return (int)mdy_init(&probe_net, &mdy_model, &mdy_memory, &config);
}

/* mdy_init with one region moved and shortened by so many bytes. */
int probe_init_with(uint32_t region, uint32_t moved, uint32_t missing)
{
    const mdy_config_t config = {.flash = &flash, .fresh = 1, .load = load};
    mdy_region_t regions[3] = {mdy_memory.planned, mdy_memory.epoch, mdy_memory.state};
    regions[region].at += moved;
    regions[region].bytes -= missing;
    const mdy_memory_t memory = {regions[0], regions[1], regions[2]};
    return (int)mdy_init(&probe_net, &mdy_model, &memory, &config);
}

int probe_step(const int8_t *sample, int label, const int32_t *target, uint32_t *loss)
{
    mdy_result_t result = {0, 0};
    give(sample);
    if (target != NULL) {
        memcpy(mdy_target(&probe_net), target, MDY_MODEL_CLASSES * sizeof *target);
    }
    const int status = (int)mdy_train_step(&probe_net, (uint16_t)label, &result);
    *loss = result.loss;
    return status;
}

int probe_infer(const int8_t *sample, int32_t *logits)
{
    mdy_result_t result = {0, 0};
    give(sample);
    const int status = (int)mdy_infer(&probe_net, 0xffff, &result);
    if (probe_net.model->head != NULL) {
        memcpy(logits, mdy_logits(&probe_net), MDY_MODEL_CLASSES * sizeof *logits);
    }
    return status;
}

/* Any planned tensor's bytes, for comparisons right after a forward pass. */
const uint8_t *probe_planned(void)
{
    return probe_net.planned;
}

/* What training did and what it holds: losses, selections, deltas, state. */
void probe_digests(uint32_t out[4])
{
    const mdy_t *m = &probe_net;
    out[0] = m->loss_crc;
    out[1] = m->selection_crc;
    out[2] = mdy_crc32(0, m->state, m->saved_bytes);
    out[3] = 0;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_selected_t selected = mdy_layer_selected(m, m->model->candidates[i].layer);
        for (uint32_t slot = 0; slot < selected.count; slot++) { /* squares, channel, delta; maps are not compared */
            out[3] = mdy_crc32(out[3], mdy_record(&selected, slot), MDY_RECORD_HEAD + selected.delta_bytes);
        }
    }
}

int probe_end_epoch(void)
{
    return (int)mdy_end_epoch(&probe_net);
}

void probe_try_epoch(void)
{
    mdy_try_epoch(&probe_net);
}

int probe_accept(void)
{
    return (int)mdy_accept(&probe_net);
}

int probe_reject(void)
{
    return (int)mdy_reject(&probe_net);
}

/* The predicted exponents, to see whether they have settled. */
int probe_exponents(int16_t *out)
{
    memcpy(out, probe_net.slot_r, probe_net.model->slot_count * sizeof *out);
    return (int)probe_net.model->slot_count;
}
