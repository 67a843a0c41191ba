/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs of shifts to the left, or with one rounding of none. */
#include "mdy/mve.h"

void mdy_mve_store_rare(const mdy_conv_t *p, uint32_t o, mdy_v4_t acc, int8_t *y)
{
    int32_t sums[MDY_LANES];
    mdy_v4_store(sums, acc);
#pragma GCC unroll 1
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        y[i] = mdy_conv_output(p, o + i, sums[i]);
    }
}
