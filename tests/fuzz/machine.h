/* SPDX-License-Identifier: Apache-2.0 */
/* The generated model over an emulated flash, for the harnesses: what they share, in one translation unit each. */
#ifndef FUZZ_MACHINE_H
#define FUZZ_MACHINE_H

#include <stdlib.h>
#include <string.h>

#include "flash_emu.h"
#include "flash_geometry.h"
#include "mdy/crc.h"
#include "mdy/mdy.h"
#include "mdy/rng.h"
#include "mdy/store.h"
#include "mdy_model.h"

#define IMAGE_BYTES MDY_FLASH_EMU_IMAGE_BYTES(MDY_FLASH_BYTES, MDY_FLASH_UNIT_BYTES, MDY_FLASH_SECTORS)

static const mdy_flash_run_t runs[] = {MDY_FLASH_RUNS};
static const mdy_flash_geometry_t geometry = {runs, sizeof runs / sizeof runs[0], MDY_FLASH_UNIT_BYTES};

/* The regions are objects of their own: the address sanitizer sees what is written beside one. */
static _Alignas(32) uint8_t image[IMAGE_BYTES];
static _Alignas(8) uint8_t planned[MDY_MODEL_PLANNED_BYTES + 8];
static _Alignas(8) uint8_t epoch[MDY_MODEL_EPOCH_BYTES + 8];
static _Alignas(8) uint8_t state[MDY_MODEL_STATE_BYTES + 8];
static const mdy_memory_t memory = {
    {planned, MDY_MODEL_PLANNED_BYTES}, {epoch, MDY_MODEL_EPOCH_BYTES}, {state, MDY_MODEL_STATE_BYTES}};
static mdy_flash_emu_t emu = {.geometry = &geometry, .image = image};
static const mdy_flash_t flash = {
    &geometry, &emu, mdy_flash_emu_read, mdy_flash_emu_erase, mdy_flash_emu_program, mdy_flash_emu_map};
static uint8_t trained[IMAGE_BYTES]; /* two generations that are right */

/* The input, taken from its front; zeros follow it. */
typedef struct {
    const uint8_t *at;
    size_t left;
} input_t;

static inline uint32_t take(input_t *in, uint32_t bytes)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < bytes && in->left > 0; i++) {
        value |= (uint32_t)*in->at++ << (8 * i);
        in->left--;
    }
    return value;
}

static inline int load_row(void *context, uint16_t row, int8_t *values)
{
    const mdy_shape_t *shape = &mdy_model.input.shape;
    (void)context;
    for (uint32_t i = 0; i < (uint32_t)shape->w * shape->c; i++) {
        values[i] = (int8_t)mdy_rng(row, i);
    }
    return 0;
}

static inline void check(int holds)
{
    if (!holds) {
        abort();
    }
}

/* A sample that follows from its number, trained or looked at. */
static inline mdy_status_t use_sample(mdy_t *net, uint32_t number, int train)
{
    mdy_result_t result;
    int8_t *values = mdy_input(net);
    for (uint32_t i = 0; values != NULL && i < MDY_MODEL_INPUT_BYTES; i++) {
        values[i] = (int8_t)mdy_rng(number, i);
    }
    const uint16_t label = (uint16_t)(number % mdy_classes(&mdy_model));
    if (train && net->schedule.rate_mult == 0) { /* what a bank may say: it is refused, and changes nothing */
        return mdy_train_step(net, label, &result) == MDY_ARGUMENT ? MDY_OK : MDY_STATE;
    }
    return train ? mdy_train_step(net, label, &result) : mdy_infer(net, label, &result);
}

/* Two generations by the runtime itself. */
static inline void train_once(void)
{
    static mdy_t net;
    const mdy_config_t config = {.flash = &flash,
                                 .seed = 5,
                                 .schedule = {.rate_mult = 20000, .rate_exponent = -16},
                                 .fresh = 1,
                                 .load = load_row};
    mdy_flash_emu_format(&emu);
    check(mdy_init(&net, &mdy_model, &memory, &config) == MDY_OK);
    for (uint32_t number = 0; number < 8; number++) {
        check(use_sample(&net, number, 1) == MDY_OK);
        if (number % 4 == 3) {
            check(mdy_end_epoch(&net) == MDY_OK);
        }
    }
    memcpy(trained, image, sizeof image);
}

#endif
