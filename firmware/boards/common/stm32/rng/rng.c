/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Random number generator of an STM32, whose clock the board has started. Sources: RM0090, 24.3 and 24.4 (RM0385, 20;
 * RM0433, 34). MDY_RNG: the address of its registers.
 */
#include "cortex_m/board.h"

#define RNG_CR MDY_REG(MDY_RNG + 0x00U)
#define RNG_SR MDY_REG(MDY_RNG + 0x04U)
#define RNG_DR MDY_REG(MDY_RNG + 0x08U)

#define CR_RNGEN (1U << 2)
#define SR_DRDY (1U << 0)
#define SR_ERRORS (3U << 1 | 3U << 5) /* CECS, SECS, CEIS, SEIS: of the clock, of the seed */
#define WORD_US 1000U                 /* 40 periods of a clock of 48 MHz take less than 1 us */

static bool next_word(uint32_t *word)
{
    const bool is_there = mdy_wait(&RNG_SR, SR_DRDY | SR_ERRORS, SR_DRDY, WORD_US);
    *word = RNG_DR;
    return is_there;
}

/* 24.3.1: the first word is only compared with; where two words after each other are the same, something is wrong. */
bool mdy_part_random(uint8_t *dst, uint32_t n)
{
    uint32_t last, word;
    RNG_CR = CR_RNGEN;
    if (!next_word(&last)) {
        return false;
    }
    for (uint32_t i = 0; i < n;) {
        if (!next_word(&word) || word == last) {
            return false;
        }
        last = word;
        for (uint32_t k = 0; k < 4U && i < n; k++) {
            dst[i++] = (uint8_t)word;
            word >>= 8;
        }
    }
    return true;
}
