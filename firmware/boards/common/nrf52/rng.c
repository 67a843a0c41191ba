/* SPDX-License-Identifier: Apache-2.0 */
/** Random number generator of the nRF52840. Source: product specification, "RNG". */
#include "cortex_m/board.h"

#define RNG 0x4000D000U
#define TASKS_START MDY_REG(RNG + 0x000U)
#define TASKS_STOP MDY_REG(RNG + 0x004U)
#define EVENTS_VALRDY MDY_REG(RNG + 0x100U)
#define CONFIG MDY_REG(RNG + 0x504U)
#define VALUE MDY_REG(RNG + 0x508U)

#define CONFIG_DERCEN 1U /* bias correction */
#define BYTE_US 10000U   /* with it a byte takes 120 us on average, without a bound */

bool mdy_part_random(uint8_t *dst, uint32_t n)
{
    bool is_there = true;
    CONFIG = CONFIG_DERCEN;
    TASKS_START = 1;
    for (uint32_t i = 0; i < n && is_there; i++) {
        EVENTS_VALRDY = 0;
        is_there = mdy_wait(&EVENTS_VALRDY, 1U, 1U, BYTE_US);
        dst[i] = (uint8_t)VALUE;
    }
    TASKS_STOP = 1;
    return is_there;
}
