/* SPDX-License-Identifier: Apache-2.0 */
#include "cortex_m/board.h"

/* For parts without a generator: the requests that a link key guards are then refused. */
__attribute__((weak)) bool mdy_part_random(uint8_t *dst, uint32_t n)
{
    (void)dst;
    (void)n;
    return false;
}
