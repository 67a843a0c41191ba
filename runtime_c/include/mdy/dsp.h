/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What kernels of the DSP family share: how four accumulators become four outputs.
 *
 * They read words from any address, as cores do after a reset (CCR.UNALIGN_TRP is 0; Armv7-M Architecture Reference
 * Manual, A3.2.1): weights lie in memory of the type Normal.
 */
#ifndef MDY_DSP_H
#define MDY_DSP_H

#include "mdy/fixed.h"
#include "mdy/ops/conv.h"
#include "mdy/simd.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_DSP_PIXELS 4u /* that kernels of this family compute at once */

#ifdef MDY_DSP
/**
 * Instructions that make an output of twice an accumulator below 2^30, as mdy_dsp_requantize does: names of registers,
 * the first of which holds the one and then the other; `temp` is anything.
 */
#if MDY_ROUND_ONCE
#define MDY_DSP_REQUANTIZE(value, mult, offset, shift, temp)                                                           \
    "smmla  " temp ", " value ", " mult ", " offset "\n"                                                               \
    "asr    " temp ", " temp ", " shift "\n"                                                                           \
    "ssat   " value ", #8, " temp "\n"
#else
#define MDY_DSP_REQUANTIZE(value, mult, offset, shift, temp)                                                           \
    "smmlar " temp ", " value ", " mult ", " offset "\n"                                                               \
    "add    " temp ", " temp ", " value ", asr #31\n"                                                                  \
    "asr    " temp ", " temp ", " shift "\n"                                                                           \
    "ssat   " value ", #8, " temp "\n"
#endif
#endif

/** How most output channels are requantised. */
typedef struct {
    int32_t mult;
    int32_t offset; /* half of the divisor and the zero point, in units of 2^-shift outputs */
    uint32_t shift; /* to the right */
} mdy_dsp_output_t;

/** Whether output channel o is: its sums can be doubled, and what they are divided by leaves room for the offset. */
static inline int mdy_dsp_is_common(const mdy_conv_t *p, uint32_t o)
{
    return p->narrow && p->mult[o] != 0 && p->shift[o] <= -1 && p->shift[o] >= -22;
}

/** Of a common output channel. */
static inline mdy_dsp_output_t mdy_dsp_output(const mdy_conv_t *p, uint32_t o)
{
    const int32_t half = 1 << (-p->shift[o] - 1);
    const mdy_dsp_output_t output = {p->mult[o], (2 * p->y_zero + 1) * half, (uint32_t)-p->shift[o]};
    return output;
}

/** The output of an accumulator below 2^30, before it is limited to the activation's range. */
static inline int32_t mdy_dsp_requantize(int32_t acc, const mdy_dsp_output_t *q)
{
    return mdy_ssat8(mdy_requantize_half((int32_t)((uint32_t)acc << 1), q->mult, q->offset, q->shift));
}

/** What is added to the input in both halfwords: its zero point, negative. */
static inline uint32_t mdy_dsp_minus_zero(const mdy_conv_t *p)
{
    return ((uint32_t)-p->x_zero & 0xFFFFu) * 0x10001u;
}

/** The delta of channel c, NULL if it is not selected; channels are asked for in order, `slot` counts those that were. */
static inline const int8_t *mdy_dsp_next_delta(const mdy_selected_t *sel, uint32_t *slot, uint32_t c)
{
    if (*slot >= sel->count || mdy_record_channel(mdy_record(sel, *slot)) != c) {
        return NULL;
    }
    return mdy_record_delta(mdy_record(sel, (*slot)++));
}

/** Whether outputs are limited to less than int8. */
static inline int mdy_dsp_is_limited(const mdy_conv_t *p)
{
    return p->act_min > -128 || p->act_max < 127;
}

/** Writes output channel o of `count` pixels, at most four, `pitch` bytes apart. */
static inline void mdy_dsp_store(const mdy_conv_t *p, uint32_t o, const int32_t acc[4], int8_t *y, uint32_t pitch,
                                 uint32_t count)
{
    if (!mdy_dsp_is_common(p, o)) {
        for (uint32_t i = 0; i < count; i++) {
            y[i * pitch] = mdy_conv_output(p, o, acc[i]);
        }
        return;
    }
    const mdy_dsp_output_t q = mdy_dsp_output(p, o);
    for (uint32_t i = 0; i < count; i++) {
        const int32_t value = mdy_dsp_requantize(acc[i], &q);
        y[i * pitch] = mdy_clamp8(value, p->act_min, p->act_max);
    }
}

#ifdef __cplusplus
}
#endif

#endif
