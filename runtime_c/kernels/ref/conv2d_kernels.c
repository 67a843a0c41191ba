/* SPDX-License-Identifier: Apache-2.0 */
/* Dense convolution in portable C: what every other family computes, bit for bit. */
#include "mdy/ops/conv2d.h"

const mdy_weighted_op_t mdy_conv2d = {
    .forward = mdy_conv2d_forward,
    .correct = mdy_conv2d_correct,
    .backward_input = mdy_conv2d_backward_input,
    .backward_weight = mdy_conv2d_backward_weight,
    .weight_offset = mdy_conv2d_weight_offset,
};
