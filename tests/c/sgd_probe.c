/* SPDX-License-Identifier: Apache-2.0 */
/* An update of a 1 x 1 layer whose channels are all selected, from the given sums of each sample. */
#include <stddef.h>

#include "mdy/schedule.h"
#include "mdy/sgd.h"

static uint32_t offset(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c)
{
    (void)tap;
    return o * p->group_in + c;
}

static const mdy_wacc_t *passed; /* of every channel */

static void pass(mdy_update_t *u)
{
    for (uint32_t slot = 0; slot < u->selected->count; slot++) {
        mdy_sgd.tap(u, slot, 0, passed + slot * u->layer->p->group_out);
    }
}

void sgd_step(uint32_t channels, uint32_t outputs, const mdy_wacc_t *sums, uint32_t exponent_bias,
              const uint16_t *rate_mult, const int8_t *rate_exponent, uint32_t norm_mult, uint32_t norm_bias,
              uint32_t lr_mult, uint32_t lr_bias, uint32_t clip, uint32_t key, const int8_t *weights, uint8_t *records,
              uint32_t record_bytes, uint32_t batch_log2)
{
    const mdy_conv_t p = {
        .kernel_h = 1,
        .kernel_w = 1,
        .group_in = (uint16_t)channels,
        .group_out = (uint16_t)outputs,
        .rate_mult = rate_mult,
        .rate_exponent = rate_exponent,
        .norm_mult = (uint16_t)norm_mult,
        .norm_exponent = (int16_t)((int32_t)norm_bias - 1000),
        .w_min = -127,
    };
    const mdy_weighted_op_t op = {.weight_offset = offset};
    const mdy_layer_t layer = {.op = &op, .p = &p};
    const mdy_selected_t selected = {records, record_bytes, outputs, (uint16_t)channels, NULL};
    const mdy_model_t model = {.batch_log2 = (uint8_t)batch_log2};
    mdy_t m = {.schedule = {.clip = (uint16_t)clip}, .model = &model};
    for (uint32_t sample = 0; sample < 1u << batch_log2; sample++, sums += channels * outputs) {
        mdy_update_t update = {
            .m = &m,
            .layer = &layer,
            .selected = &selected,
            .weights = weights,
            .pass = pass,
            .key = key + sample,
            .exponent = (int)exponent_bias - 1000,
            .rate_mult = lr_mult,
            .rate_exponent = (int32_t)lr_bias - 1000,
        };
        passed = sums;
        mdy_sgd.layer(&update);
    }
    if (batch_log2 > 0) {
        mdy_update_t update = {
            .m = &m,
            .layer = &layer,
            .selected = &selected,
            .weights = weights,
            .key = key - 1,
            .rate_mult = lr_mult,
            .rate_exponent = (int32_t)lr_bias - 1000 + (int32_t)batch_log2,
        };
        mdy_sgd.batch(&update);
    }
}

void sgd_biases(uint32_t outputs, mdy_wacc_t *sums, uint32_t exponent_bias, const uint16_t *rate_mult,
                const int8_t *rate_exponent, uint32_t norm_mult, uint32_t norm_bias, uint32_t lr_mult, uint32_t lr_bias,
                uint32_t clip, uint32_t key, int32_t most, int32_t *biases)
{
    const mdy_conv_t p = {.out = {1, 1, (uint16_t)outputs}};
    const mdy_layer_t layer = {.p = &p};
    const mdy_model_t model = {.batch_log2 = 0};
    const mdy_biases_t update_of = {
        .layer = &layer,
        .most = most,
        .rate_mult = rate_mult,
        .rate_exponent = rate_exponent,
        .norm_mult = (uint16_t)norm_mult,
        .norm_exponent = (int16_t)((int32_t)norm_bias - 1000),
    };
    mdy_t m = {.schedule = {.clip = (uint16_t)clip}, .model = &model};
    mdy_update_t update = {
        .m = &m,
        .layer = &layer,
        .sums = sums,
        .key = key,
        .exponent = (int)exponent_bias - 1000,
        .rate_mult = lr_mult,
        .rate_exponent = (int32_t)lr_bias - 1000,
    };
    mdy_sgd.biases(&update, &update_of, biases);
}

/* The mantissa of the rate after so many steps, all of one epoch, in batches of 2^batch_log2 samples. */
uint32_t sgd_rate(uint32_t rate_mult, uint32_t warmup_steps, uint32_t total_steps, uint32_t cosine, uint32_t steps,
                  uint32_t batch_log2)
{
    const mdy_model_t model = {.batch_log2 = (uint8_t)batch_log2};
    mdy_t m = {
        .schedule = {.rate_mult = rate_mult,
                     .cosine = cosine,
                     .warmup_steps = warmup_steps,
                     .total_steps = total_steps},
        .model = &model,
        .steps = steps,
        .epoch_step = steps,
    };
    mdy_schedule_step(&m);
    return m.rate_mult;
}
