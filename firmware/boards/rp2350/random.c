/* SPDX-License-Identifier: Apache-2.0 */
/** Random number generator of the RP2350. Source: RP2350 data sheet, 12.12 (TRNG), 7.5 (resets). */
#include "cortex_m/board.h"

#define RESETS_RESET MDY_REG(0x40020000U)
#define RESETS_DONE MDY_REG(0x40020008U)
#define RESET_TRNG (1U << 25)

#define TRNG 0x400F0000U
#define RNG_ISR MDY_REG(TRNG + 0x104U)
#define RNG_ICR MDY_REG(TRNG + 0x108U)
#define EHR_DATA(n) MDY_REG(TRNG + 0x114U + 4U * (n))
#define RND_SOURCE_ENABLE MDY_REG(TRNG + 0x12CU)

#define ISR_EHR_VALID (1U << 0)
#define ISR_ERRORS (7U << 1) /* of its own tests */
#define EHR_WORDS 6U
#define BLOCK_US 1000000U /* 192 bits, each of up to 65535 cycles after a reset */

bool mdy_part_random(uint8_t *dst, uint32_t n)
{
    RESETS_RESET |= RESET_TRNG; /* also after an error, from which it does not go on */
    RESETS_RESET &= ~RESET_TRNG;
    if (!mdy_wait(&RESETS_DONE, RESET_TRNG, RESET_TRNG, BLOCK_US)) {
        return false;
    }
    RND_SOURCE_ENABLE = 1;
    for (uint32_t i = 0; i < n;) {
        if (!mdy_wait(&RNG_ISR, ISR_EHR_VALID | ISR_ERRORS, ISR_EHR_VALID, BLOCK_US)) {
            return false;
        }
        for (uint32_t k = 0; k < EHR_WORDS; k++) { /* all of them: reading the last one begins the next block */
            uint32_t word = EHR_DATA(k);
            for (uint32_t byte = 0; byte < 4U && i < n; byte++) {
                dst[i++] = (uint8_t)word;
                word >>= 8;
            }
        }
        RNG_ICR = ISR_EHR_VALID;
    }
    RND_SOURCE_ENABLE = 0;
    return true;
}
