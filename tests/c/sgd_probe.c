/* SPDX-License-Identifier: Apache-2.0 */
/* One step's update of a 1 x 1 layer whose channels are all selected, from given sums. */
#include "mdy/sgd.h"

static uint32_t offset(const mdy_conv_t *p, uint32_t o, uint32_t tap, uint32_t c)
{
    (void)tap;
    return o * p->group_in + c;
}

void sgd_step(uint32_t channels, uint32_t outputs, const mdy_wacc_t *sums, uint32_t exponent_bias,
              const uint16_t *rate_mult, const int8_t *rate_exponent, uint32_t norm_mult, uint32_t norm_bias,
              uint32_t lr_mult, uint32_t lr_bias, uint32_t clip, uint32_t key, const int8_t *weights,
              uint8_t *records)
{
    const mdy_conv_t p = {
        .kernel_h = 1, .kernel_w = 1, .group_in = (uint16_t)channels, .group_out = (uint16_t)outputs,
        .rate_mult = rate_mult, .rate_exponent = rate_exponent, .norm_mult = (uint16_t)norm_mult,
        .norm_exponent = (int16_t)((int32_t)norm_bias - 1000), .w_min = -127,
    };
    const mdy_weighted_op_t op = {.weight_offset = offset};
    const mdy_layer_t layer = {.op = &op, .p = &p};
    const mdy_selected_t selected = {records, (MDY_RECORD_HEAD + outputs + 7u) & ~7u, outputs, (uint16_t)channels};
    mdy_t m = {.schedule = {.clip = (uint16_t)clip}};
    mdy_update_t update = {
        .m = &m, .layer = &layer, .selected = &selected, .weights = weights, .key = key,
        .exponent = (int)exponent_bias - 1000, .rate_mult = lr_mult, .rate_exponent = (int32_t)lr_bias - 1000,
    };
    update.does = clip == 0 ? MDY_MEASURE | MDY_APPLY : MDY_MEASURE;
    for (uint32_t pass = 0; pass < (clip == 0 ? 1u : 2u); pass++) {
        for (uint32_t slot = 0; slot < channels; slot++) {
            mdy_update_tap(&update, slot, 0, sums + slot * outputs);
        }
        mdy_update_clip(&update);
        update.does = MDY_APPLY;
    }
}
