/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/activation.h"

#include "mdy/fixed.h"

void mdy_activation_forward(const mdy_activation_t *p, const int8_t *x, int8_t *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        y[i] = p->table[x[i] + 128];
    }
}

void mdy_activation_backward(const mdy_activation_t *p, const int8_t *x, mdy_grad_t *dy, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        dy[i] = (mdy_grad_t)mdy_round_shift((int32_t)dy[i] * p->slope[x[i] + 128], 14);
    }
}
