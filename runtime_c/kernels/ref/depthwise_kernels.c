/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution in portable C: what every other family computes, bit for bit. */
#include "mdy/ops/depthwise.h"

const mdy_weighted_op_t mdy_depthwise = {
    .forward = mdy_depthwise_forward,
    .correct = mdy_depthwise_correct,
    .backward_input = mdy_depthwise_backward_input,
    .backward_weight = mdy_depthwise_backward_weight,
    .weight_offset = mdy_depthwise_weight_offset,
};
