/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What kernels of the DSP family share: how four accumulators become four outputs.
 *
 * They read words from any address, as cores do after a reset (CCR.UNALIGN_TRP is 0; Armv7-M Architecture Reference
 * Manual, A3.2.1): weights lie in memory of the type Normal.
 */
#ifndef MDY_DSP_H
#define MDY_DSP_H

#include <string.h>

#include "mdy/fixed.h"
#include "mdy/ops/conv2d.h"
#include "mdy/simd.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_DSP_PIXELS 4u /* that kernels of this family compute at once */

#ifdef MDY_DSP
/* clang-format off: instructions, one in a line */
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

/**
 * Adds a row of a 3 x 3 window to the sums of four outputs side by side, r2 to r5, or begins them. The structure at `at`
 * has the address of a row of halfwords, lr what is added to it, and the filter's words (0, 1) and (1, 2).
 */
#define MDY_DSP_THREE(row, filter, begin)                                                                              \
    "ldr    r1, [%[at], #" row "]\n"                                                                                   \
    "ldrd   r10, r11, [%[at], #" filter "]\n"                                                                          \
    "add    r1, r1, lr\n"                                                                                              \
    "ldrd   r6, r8, [r1]\n"                                                                                            \
    "ldr    r9, [r1, #8]\n" begin("r2", "r3", "r4", "r5") "smlabt r2, r8, r11, r2\n"                                   \
                                                          "smlad  r3, r8, r11, r3\n"                                   \
                                                          "smlabt r4, r9, r11, r4\n"                                   \
                                                          "smlad  r5, r9, r11, r5\n"
#define MDY_DSP_FIRST(a, b, c, d)                                                                                      \
    "smuad  " a ", r6, r10\n"                                                                                          \
    "smultb " b ", r6, r10\n"                                                                                          \
    "smuad  " c ", r8, r10\n"                                                                                          \
    "smultb " d ", r8, r10\n"
#define MDY_DSP_NEXT(a, b, c, d)                                                                                       \
    "smlad  " a ", r6, r10, " a "\n"                                                                                   \
    "smlatb " b ", r6, r10, " b "\n"                                                                                   \
    "smlad  " c ", r8, r10, " c "\n"                                                                                   \
    "smlatb " d ", r8, r10, " d "\n"
#define MDY_DSP_CLOBBERED "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory"
#endif
/* clang-format on */

/** Whether every window is one pixel of the input: none lies in padding, behind the input either. */
static inline int mdy_dsp_is_pixel(const mdy_conv_t *p)
{
    return p->kernel_h == 1 && p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0 &&
           (p->out.h - 1) * p->stride_h < p->in.h && (p->out.w - 1) * p->stride_w < p->in.w;
}

/** Whether pixel for pixel of the input is one of the output. */
static inline int mdy_dsp_is_pixelwise(const mdy_conv_t *p)
{
    return mdy_dsp_is_pixel(p) && p->stride_h == 1 && p->stride_w == 1 && p->in.h == p->out.h && p->in.w == p->out.w;
}

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

/** g_acc of four outputs of a pixel from `o` on, see mdy_grad_acc. */
static inline void mdy_dsp_scale4(const mdy_conv_t *p, const mdy_grad_t *dy, uint32_t o, int32_t g_acc[4])
{
#if MDY_GRAD_BITS == 8
    const int32_t half = 1 << (MDY_GRAD_BITS - 2);
    const uint32_t four = mdy_load4(dy + o);
    uint32_t mult[2];
    memcpy(mult, p->grad_mult + o, sizeof mult);
    g_acc[0] = mdy_smlabb(mdy_even(four), mult[0], half) >> (MDY_GRAD_BITS - 1);
    g_acc[1] = mdy_smlabt(mdy_odd(four), mult[0], half) >> (MDY_GRAD_BITS - 1);
    g_acc[2] = mdy_smlatb(mdy_even(four), mult[1], half) >> (MDY_GRAD_BITS - 1);
    g_acc[3] = mdy_smlatt(mdy_odd(four), mult[1], half) >> (MDY_GRAD_BITS - 1);
#else
    for (uint32_t i = 0; i < 4; i++) {
        g_acc[i] = mdy_grad_acc(p, dy[o + i], o + i);
    }
#endif
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

/** Directions of the family's dense convolution that have a file of their own; see mdy/ops/conv2d.h. */
void mdy_dsp_conv2d_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                            int32_t *acc_init);
void mdy_dsp_conv2d_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel,
                                   const mdy_view_t *dy, mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace);
void mdy_dsp_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                    const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace);

/** And of its depthwise convolution; see mdy/ops/depthwise.h. */
void mdy_dsp_depthwise_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel,
                                      const mdy_view_t *dy, mdy_band_t rows, mdy_sink_t *sink,
                                      mdy_workspace_t workspace);

/** Words of a filter's row of so many taps: pairs, with an empty tap in front or behind. */
static inline uint32_t mdy_dsp_filter_words(const mdy_conv_t *p)
{
    return p->kernel_w / 2u + 1u;
}

/**
 * Adds a row of a filter to four outputs side by side that begin at x: words of two taps. w: its words, each beside the
 * one moved by a tap.
 */
void mdy_dsp_add_row(const uint32_t *x, const uint32_t *w, uint32_t words, int32_t acc[4]);

#ifdef __cplusplus
}
#endif

#endif
