/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"

#include <string.h>

#include "mdy/tensor.h"

static uint32_t sample_bytes(const replay_t *replay)
{
    return mdy_tensor_bytes(&replay->net.model->input);
}

static int8_t *values_of(const replay_t *replay, const replay_slot_t *slot)
{
    return &replay->values[(uint32_t)(slot - replay->slots) * sample_bytes(replay)];
}

/* How many kept samples have a label. */
static uint32_t count_of(const replay_t *replay, uint16_t label)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < replay->count; i++) {
        found += replay->slots[i].number != 0u && replay->slots[i].label == label;
    }
    return found;
}

static replay_slot_t *oldest_of(const replay_t *replay, uint16_t label)
{
    replay_slot_t *found = NULL;
    for (uint32_t i = 0; i < replay->count; i++) {
        replay_slot_t *const slot = &replay->slots[i];
        if (slot->number != 0u && slot->label == label && (found == NULL || slot->number < found->number)) {
            found = slot;
        }
    }
    return found;
}

/* The class with the most kept samples; APP_NO_LABEL where there is none. */
static uint16_t largest_class(const replay_t *replay)
{
    uint16_t found = APP_NO_LABEL;
    uint32_t most = 0;
    for (uint32_t i = 0; i < replay->count; i++) {
        const uint16_t label = replay->slots[i].label;
        const uint32_t n = replay->slots[i].number == 0u || label == APP_NO_LABEL ? 0u : count_of(replay, label);
        if (n > most) {
            most = n;
            found = label;
        }
    }
    return found;
}

/* Where the next sample goes: an empty slot; else the oldest that still waits, if enough of them do; else the oldest of
 * the largest class, so that a rare class is kept. */
static replay_slot_t *free_slot(const replay_t *replay)
{
    for (uint32_t i = 0; i < replay->count; i++) {
        if (replay->slots[i].number == 0u) {
            return &replay->slots[i];
        }
    }
    const uint16_t largest = largest_class(replay);
    const int is_crowded = count_of(replay, APP_NO_LABEL) >= replay->waiting;
    return oldest_of(replay, is_crowded || largest == APP_NO_LABEL ? APP_NO_LABEL : largest);
}

/* Of the next class in turn that has kept samples the one trained longest ago; NULL: none has a label. */
static replay_slot_t *next_rehearsal(replay_t *replay)
{
    const uint32_t classes = mdy_classes(replay->net.model);
    for (uint32_t n = 1; n <= classes; n++) {
        const uint16_t label = (uint16_t)((replay->last + n) % classes);
        replay_slot_t *found = NULL;
        for (uint32_t i = 0; i < replay->count; i++) {
            replay_slot_t *const slot = &replay->slots[i];
            if (slot->number != 0u && slot->label == label && (found == NULL || slot->turn < found->turn)) {
                found = slot;
            }
        }
        if (found != NULL) {
            replay->last = label;
            return found;
        }
    }
    return NULL;
}

static mdy_status_t train(replay_t *replay, replay_slot_t *slot)
{
    memcpy(mdy_input(&replay->net), values_of(replay, slot), sample_bytes(replay));
    slot->turn = ++replay->turn;
    return mdy_train_step(&replay->net, slot->label, &replay->result);
}

static void show(const replay_t *replay, app_event_t event, mdy_status_t status)
{
    replay->hardware->show(replay->hardware->context, event, replay->result.prediction, status);
}

static mdy_status_t learn(replay_t *replay, uint16_t label, uint16_t age)
{
    replay_slot_t *slot = NULL;
    for (uint32_t i = 0; i < replay->count; i++) {
        if (replay->slots[i].number != 0u && replay->slots[i].number + age == replay->number) {
            slot = &replay->slots[i];
        }
    }
    if (slot == NULL || label >= mdy_classes(replay->net.model)) {
        show(replay, APP_REFUSED, MDY_ARGUMENT); /* the sample is gone, or there is no such class */
        return MDY_OK;
    }
    slot->label = label;
    mdy_status_t status = train(replay, slot);
    if (status == MDY_OK) {
        show(replay, APP_TRAINED, status);
    }
    for (uint32_t i = 0; i < replay->rehearsals && status == MDY_OK; i++) {
        slot = next_rehearsal(replay);
        status = slot == NULL ? MDY_OK : train(replay, slot);
    }
    return status;
}

static mdy_status_t infer(replay_t *replay, const replay_slot_t *slot)
{
    memcpy(mdy_input(&replay->net), values_of(replay, slot), sample_bytes(replay));
    const mdy_status_t status = mdy_infer(&replay->net, APP_NO_LABEL, &replay->result);
    if (status == MDY_OK) {
        show(replay, APP_INFERRED, status);
    }
    return status;
}

mdy_status_t replay_start(replay_t *replay, const mdy_model_t *model, const mdy_memory_t *memory,
                          const mdy_config_t *config)
{
    replay->commits.up = 0;
    replay->commits.refused = 0;
    if (replay->waiting == 0u || replay->waiting >= replay->count || mdy_by_rows(model)) {
        return MDY_ARGUMENT;
    }
    return mdy_init(&replay->net, model, memory, config);
}

mdy_status_t replay_turn(replay_t *replay)
{
    const app_hardware_t *const hardware = replay->hardware;
    replay_slot_t *const slot = free_slot(replay);
    slot->number = 0; /* also when the sample does not come whole */
    const int taken = hardware->sample(hardware->context, values_of(replay, slot), sample_bytes(replay));
    if (taken <= 0) {
        return taken < 0 ? MDY_LINK : MDY_OK;
    }
    *slot = (replay_slot_t){.number = ++replay->number, .label = APP_NO_LABEL};
    uint16_t age = 0;
    const uint16_t label = hardware->label(hardware->context, &age);
    const int is_down = label != APP_NO_LABEL;
    mdy_status_t status = infer(replay, slot);
    if (status == MDY_OK && is_down) {
        status = learn(replay, label, age);
    }
    return status == MDY_OK ? app_commit(&replay->commits, &replay->net, hardware, is_down) : status;
}
