/* SPDX-License-Identifier: Apache-2.0 */
#include "learn.h"

#include "mdy/tensor.h"

mdy_status_t learn_start(learn_t *learn, const mdy_model_t *model, const mdy_memory_t *memory,
                         const mdy_config_t *config)
{
    learn->commits.up = 0;
    learn->commits.refused = 0;
    return mdy_init(&learn->net, model, memory, config);
}

/* A label out of range, or of a sample that is gone, is refused and changes nothing. */
static mdy_status_t train(learn_t *learn, uint16_t label, uint16_t age)
{
    const app_hardware_t *const hardware = learn->hardware;
    const mdy_status_t status = age == 0u ? mdy_train_step(&learn->net, label, &learn->result) : MDY_ARGUMENT;
    hardware->show(hardware->context, status == MDY_OK ? APP_TRAINED : APP_REFUSED, learn->result.prediction, status);
    return status == MDY_ARGUMENT ? MDY_OK : status;
}

static mdy_status_t infer(learn_t *learn)
{
    const app_hardware_t *const hardware = learn->hardware;
    const mdy_status_t status = mdy_infer(&learn->net, APP_NO_LABEL, &learn->result);
    if (status == MDY_OK) {
        hardware->show(hardware->context, APP_INFERRED, learn->result.prediction, MDY_OK);
    }
    return status;
}

mdy_status_t learn_turn(learn_t *learn)
{
    const app_hardware_t *const hardware = learn->hardware;
    const uint32_t bytes = mdy_tensor_bytes(&learn->net.model->input);
    const int taken = hardware->sample(hardware->context, mdy_input(&learn->net), bytes);
    if (taken <= 0) {
        return taken < 0 ? MDY_LINK : MDY_OK;
    }
    uint16_t age = 0;
    const uint16_t label = hardware->label(hardware->context, &age);
    const int is_down = label != APP_NO_LABEL;
    const mdy_status_t status = is_down ? train(learn, label, age) : infer(learn);
    return status == MDY_OK ? app_commit(&learn->commits, &learn->net, hardware, is_down) : status;
}
