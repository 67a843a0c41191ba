/* SPDX-License-Identifier: Apache-2.0 */
/* The generated model as a library: what the tests call through ctypes. */
#include <string.h>

#include "mdy/mdy.h"
#include "mdy/port.h"
#include "mdy_model.h"

static _Alignas(8) uint8_t arena[MDY_MODEL_ARENA_BYTES];
mdy_t probe_net;

static uint8_t flash[16 << 20];
const mdy_flash_geometry_t mdy_port_flash = {sizeof flash, 4096, 8};

mdy_status_t mdy_port_flash_read(uint32_t address, void *dst, uint32_t n)
{
    memcpy(dst, flash + address, n);
    return MDY_OK;
}

mdy_status_t mdy_port_flash_erase(uint32_t address)
{
    memset(flash + address, 0xff, 4096);
    return MDY_OK;
}

mdy_status_t mdy_port_flash_program(uint32_t address, const void *src, uint32_t n)
{
    memcpy(flash + address, src, n);
    return MDY_OK;
}

const uint8_t *mdy_port_flash_map(void)
{
    return flash;
}

int probe_init(uint32_t seed, int rate_mult, int rate_exponent)
{
    const mdy_config_t config = {
        .seed = seed,
        .schedule = {.rate_mult = (uint32_t)rate_mult, .rate_exponent = rate_exponent},
        .fresh = 1,
    };
    return (int)mdy_init(&probe_net, &mdy_model, arena, sizeof arena, &config);
}

int probe_step(const int8_t *sample, int label, const int32_t *target, uint32_t *loss)
{
    mdy_result_t result = {0, 0};
    memcpy(mdy_input(&probe_net), sample, MDY_MODEL_INPUT_BYTES);
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
    memcpy(mdy_input(&probe_net), sample, MDY_MODEL_INPUT_BYTES);
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

int probe_end_epoch(void)
{
    return (int)mdy_end_epoch(&probe_net);
}

/* The predicted exponents, to see whether they have settled. */
int probe_exponents(int16_t *out)
{
    memcpy(out, probe_net.slot_r, probe_net.model->slot_count * sizeof *out);
    return (int)probe_net.model->slot_count;
}
