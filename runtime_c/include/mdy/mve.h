/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What kernels of the MVE family use of the M-profile vector extension for integers, each as one function: the
 * instructions where the core has them, else what they compute, so that the family can be tested on any machine.
 *
 * A vector has four lanes of 32 bits, which are channels side by side; loops over bytes take 16 at a time and mask what
 * lies behind the last one. Sums wrap.
 *
 * Source   Armv8-M Architecture Reference Manual, C2.4: DLSTP, LETP, VLDRB, VMLADAVA, VQDMULH, VQRDMULH, VRSHL
 */
#ifndef MDY_MVE_H
#define MDY_MVE_H

#include <stdint.h>
#include <string.h>

#include "mdy/fixed.h"
#include "mdy/ops/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MDY_LANES 4u       /* of a vector */
#define MDY_MVE_BYTES 16u  /* of a vector */
#define MDY_MVE_OUTPUTS 4u /* that mdy_mve_dot makes at once */

#if defined(__ARM_FEATURE_MVE)
#define MDY_MVE 1 /* the instructions are there */

#include <arm_mve.h>

typedef int32x4_t mdy_v4_t;

static inline mdy_v4_t mdy_v4_all(int32_t x)
{
    return vdupq_n_s32(x);
}

static inline mdy_v4_t mdy_v4_of(int32_t a, int32_t b, int32_t c, int32_t d)
{
    mdy_v4_t v;
    __asm__("vmov %q0[2], %q0[0], %1, %2\n"
            "vmov %q0[3], %q0[1], %3, %4"
            : "=&w"(v)
            : "r"(a), "r"(c), "r"(b), "r"(d));
    return v;
}

static inline mdy_v4_t mdy_v4_load(const int32_t *from)
{
    return vld1q_s32(from);
}

static inline mdy_v4_t mdy_v4_load8(const int8_t *from)
{
    return vldrbq_s32(from);
}

static inline mdy_v4_t mdy_v4_load16(const int16_t *from)
{
    return vldrhq_s32(from);
}

static inline void mdy_v4_store(int32_t *to, mdy_v4_t v)
{
    vst1q_s32(to, v);
}

static inline void mdy_v4_store8(int8_t *to, mdy_v4_t v)
{
    vstrbq_s32(to, v);
}

static inline void mdy_v4_store16(int16_t *to, mdy_v4_t v)
{
    vstrhq_s32(to, v);
}

static inline mdy_v4_t mdy_v4_add(mdy_v4_t a, mdy_v4_t b)
{
    return vaddq_s32(a, b);
}

static inline mdy_v4_t mdy_v4_mul(mdy_v4_t a, mdy_v4_t b)
{
    return vmulq_s32(a, b);
}

static inline mdy_v4_t mdy_v4_add_times(mdy_v4_t sum, mdy_v4_t a, int32_t x)
{
    return vmlaq_n_s32(sum, a, x);
}

static inline mdy_v4_t mdy_v4_shift(mdy_v4_t a, mdy_v4_t n)
{
    return vrshlq_s32(a, n);
}

static inline int32_t mdy_v4_max(mdy_v4_t a, int32_t than)
{
    return vmaxvq_s32(than, a);
}

static inline mdy_v4_t mdy_v4_where_zero(mdy_v4_t a, mdy_v4_t zero, mdy_v4_t other)
{
    const mdy_v4_t is_zero = vshrq_n_s32(vsubq_n_s32(a, 1), 31); /* gcc 12 fails on a comparison and a choice */
    return vorrq_s32(vandq_s32(zero, is_zero), vbicq_s32(other, is_zero));
}

static inline mdy_v4_t mdy_v4_requantize(mdy_v4_t acc, mdy_v4_t mult, mdy_v4_t shift)
{
#if MDY_ROUND_ONCE
    return vrshlq_s32(vqdmulhq_s32(acc, mult), shift);
#else
    const mdy_v4_t high = vqrdmulhq_s32(acc, mult);
    const mdy_v4_t is_moved = vshrq_n_s32(vandq_s32(high, shift), 31); /* -1: negative, and shifted */
    return vrshlq_s32(vqaddq_s32(high, is_moved), shift);
#endif
}

static inline mdy_v4_t mdy_v4_scale_down(mdy_v4_t x, int32_t mult, int32_t shift)
{
#if MDY_ROUND_ONCE
    return vrshlq_n_s32(vqdmulhq_n_s32(x, mult), shift);
#else
    const mdy_v4_t high = vqrdmulhq_n_s32(x, mult);
    return vrshlq_n_s32(vmlaq_n_s32(high, vshrq_n_s32(high, 31), shift < 0), shift); /* -1: negative, and shifted */
#endif
}

static inline mdy_v4_t mdy_v4_output(mdy_v4_t value, mdy_v4_t zero, mdy_v4_t low, mdy_v4_t high)
{
    return vminq_s32(vmaxq_s32(vqaddq_s32(value, zero), low), high);
}

static inline void mdy_mve_pixels(int8_t *to, const int8_t *from, uint32_t pitch, uint32_t pixels, uint32_t channels)
{
    __asm__ volatile("vctp.8   %[channels]\n"
                     "dls      lr, %[pixels]\n"
                     "1:\n"
                     "vpstt\n"
                     "vldrbt.8 q0, [%[from]]\n"
                     "vstrbt.8 q0, [%[to]], #16\n"
                     "add      %[from], %[from], %[pitch]\n"
                     "le       lr, 1b\n"
                     : [to] "+&r"(to), [from] "+&r"(from)
                     : [pitch] "r"(pitch), [pixels] "r"(pixels), [channels] "r"(channels)
                     : "lr", "q0", "memory");
}

static inline void mdy_mve_copy(int8_t *to, const int8_t *from, uint32_t count)
{
    __asm__ volatile("dlstp.8 lr, %[count]\n"
                     "1:\n"
                     "vldrb.8 q0, [%[from]], #16\n"
                     "vstrb.8 q0, [%[to]], #16\n"
                     "letp    lr, 1b\n"
                     : [to] "+r"(to), [from] "+r"(from)
                     : [count] "r"(count)
                     : "lr", "q0", "memory");
}

static inline void mdy_mve_fill(int8_t *to, int32_t value, uint32_t count)
{
    __asm__ volatile("vdup.8  q0, %[value]\n"
                     "dlstp.8 lr, %[count]\n"
                     "1:\n"
                     "vstrb.8 q0, [%[to]], #16\n"
                     "letp    lr, 1b\n"
                     : [to] "+r"(to)
                     : [value] "r"(value), [count] "r"(count)
                     : "lr", "q0", "memory");
}

static inline mdy_v4_t mdy_mve_dot(const int32_t *begin, const int8_t *x, const int8_t *w, uint32_t pitch,
                                   uint32_t count)
{
    const int8_t *w1 = w + pitch;
    const int8_t *w2 = w1 + pitch;
    const int8_t *w3 = w2 + pitch;
    int32_t a = begin[0];
    int32_t b = begin[1];
    int32_t c = begin[2];
    int32_t d = begin[3];
    __asm__("dlstp.8      lr, %[count]\n"
            "1:\n"
            "vldrb.8      q0, [%[x]], #16\n"
            "vldrb.8      q1, [%[w]], #16\n"
            "vmladava.s8  %[a], q0, q1\n"
            "vldrb.8      q1, [%[w1]], #16\n"
            "vmladava.s8  %[b], q0, q1\n"
            "vldrb.8      q1, [%[w2]], #16\n"
            "vmladava.s8  %[c], q0, q1\n"
            "vldrb.8      q1, [%[w3]], #16\n"
            "vmladava.s8  %[d], q0, q1\n"
            "letp         lr, 1b\n"
            : [a] "+&Te"(a), [b] "+&Te"(b), [c] "+&Te"(c), [d] "+&Te"(d), [x] "+&r"(x), [w] "+&r"(w), [w1] "+&r"(w1),
              [w2] "+&r"(w2), [w3] "+&r"(w3)
            : [count] "r"(count)
            : "lr", "q0", "q1", "memory");
    return mdy_v4_of(a, b, c, d);
}

static inline mdy_v4_t mdy_mve_sums(const int8_t *w, uint32_t pitch, uint32_t count)
{
    const int8_t *w1 = w + pitch;
    const int8_t *w2 = w1 + pitch;
    const int8_t *w3 = w2 + pitch;
    int32_t a = 0;
    int32_t b = 0;
    int32_t c = 0;
    int32_t d = 0;
    __asm__("dlstp.8   lr, %[count]\n"
            "1:\n"
            "vldrb.8   q1, [%[w]], #16\n"
            "vaddva.s8 %[a], q1\n"
            "vldrb.8   q1, [%[w1]], #16\n"
            "vaddva.s8 %[b], q1\n"
            "vldrb.8   q1, [%[w2]], #16\n"
            "vaddva.s8 %[c], q1\n"
            "vldrb.8   q1, [%[w3]], #16\n"
            "vaddva.s8 %[d], q1\n"
            "letp      lr, 1b\n"
            : [a] "+&Te"(a), [b] "+&Te"(b), [c] "+&Te"(c), [d] "+&Te"(d), [w] "+&r"(w), [w1] "+&r"(w1), [w2] "+&r"(w2),
              [w3] "+&r"(w3)
            : [count] "r"(count)
            : "lr", "q1", "memory");
    return mdy_v4_of(a, b, c, d);
}

/* clang-format off: instructions, one in a line */
/* The products of one output, at `x`, with three taps; q7 is anything. */
#define MDY_MVE_THREE(sum, x)                                                                                          \
    "vldrb.s32 q7, [%[" x "]]\n"                                                                                       \
    "vmul.i32  q7, q7, %q[tap0]\n"                                                                                     \
    "vadd.i32  %q[" sum "], %q[" sum "], q7\n"                                                                         \
    "vldrb.s32 q7, [%[" x "], #16]\n"                                                                                  \
    "vmul.i32  q7, q7, %q[tap1]\n"                                                                                     \
    "vadd.i32  %q[" sum "], %q[" sum "], q7\n"                                                                         \
    "vldrb.s32 q7, [%[" x "], #32]\n"                                                                                  \
    "vmul.i32  q7, q7, %q[tap2]\n"                                                                                     \
    "vadd.i32  %q[" sum "], %q[" sum "], q7\n"

static inline void mdy_mve_threes(mdy_v4_t acc[4], const int8_t *const x[4], const int8_t *w, uint32_t rows,
                                  uint32_t row_bytes)
{
    mdy_v4_t tap0;
    mdy_v4_t tap1;
    mdy_v4_t tap2;
    const int8_t *x0 = x[0];
    const int8_t *x1 = x[1];
    const int8_t *x2 = x[2];
    const int8_t *x3 = x[3];
    __asm__("dls       lr, %[rows]\n"
            "1:\n"
            "vldrb.s32 %q[tap0], [%[w]]\n"
            "vldrb.s32 %q[tap1], [%[w], #16]\n"
            "vldrb.s32 %q[tap2], [%[w], #32]\n" MDY_MVE_THREE("a", "x0") MDY_MVE_THREE("b", "x1")
                MDY_MVE_THREE("c", "x2") MDY_MVE_THREE("d", "x3") "add       %[w], %[w], #48\n"
                                                                  "add       %[x0], %[x0], %[row_bytes]\n"
                                                                  "add       %[x1], %[x1], %[row_bytes]\n"
                                                                  "add       %[x2], %[x2], %[row_bytes]\n"
                                                                  "add       %[x3], %[x3], %[row_bytes]\n"
                                                                  "le        lr, 1b\n"
            : [a] "+&w"(acc[0]), [b] "+&w"(acc[1]), [c] "+&w"(acc[2]), [d] "+&w"(acc[3]), [tap0] "=&w"(tap0),
              [tap1] "=&w"(tap1), [tap2] "=&w"(tap2), [x0] "+&l"(x0), [x1] "+&l"(x1), [x2] "+&l"(x2), [x3] "+&l"(x3),
              [w] "+&l"(w)
            : [rows] "r"(rows), [row_bytes] "r"(row_bytes)
            : "lr", "q7", "memory");
}
/* clang-format on */

static inline void mdy_mve_dot16(const int16_t *x, const int8_t *w, uint32_t pitch, uint32_t rows, uint32_t count,
                                 int32_t sums[MDY_LANES])
{
    const int8_t *w1 = rows > 1 ? w + pitch : w;
    const int8_t *w2 = rows > 2 ? w + 2 * pitch : w;
    const int8_t *w3 = rows > 3 ? w + 3 * pitch : w;
    int32_t a = 0;
    int32_t b = 0;
    int32_t c = 0;
    int32_t d = 0;
    __asm__("dlstp.16     lr, %[count]\n"
            "1:\n"
            "vldrh.16     q0, [%[x]], #16\n"
            "vldrb.s16    q1, [%[w]], #8\n"
            "vmladava.s16 %[a], q0, q1\n"
            "vldrb.s16    q1, [%[w1]], #8\n"
            "vmladava.s16 %[b], q0, q1\n"
            "vldrb.s16    q1, [%[w2]], #8\n"
            "vmladava.s16 %[c], q0, q1\n"
            "vldrb.s16    q1, [%[w3]], #8\n"
            "vmladava.s16 %[d], q0, q1\n"
            "letp         lr, 1b\n"
            : [a] "+&Te"(a), [b] "+&Te"(b), [c] "+&Te"(c), [d] "+&Te"(d), [x] "+&r"(x), [w] "+&l"(w), [w1] "+&l"(w1),
              [w2] "+&l"(w2), [w3] "+&l"(w3)
            : [count] "r"(count)
            : "lr", "q0", "q1", "memory");
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

#else

/** Four lanes. */
typedef struct {
    int32_t lane[MDY_LANES];
} mdy_v4_t;

/** The same value in all lanes. */
static inline mdy_v4_t mdy_v4_all(int32_t x)
{
    const mdy_v4_t v = {{x, x, x, x}};
    return v;
}

/** Lanes 0 to 3. */
static inline mdy_v4_t mdy_v4_of(int32_t a, int32_t b, int32_t c, int32_t d)
{
    const mdy_v4_t v = {{a, b, c, d}};
    return v;
}

static inline mdy_v4_t mdy_v4_load(const int32_t *from)
{
    return mdy_v4_of(from[0], from[1], from[2], from[3]);
}

/** Four bytes side by side, with their signs. */
static inline mdy_v4_t mdy_v4_load8(const int8_t *from)
{
    return mdy_v4_of(from[0], from[1], from[2], from[3]);
}

/** Four halfwords side by side, with their signs. */
static inline mdy_v4_t mdy_v4_load16(const int16_t *from)
{
    return mdy_v4_of(from[0], from[1], from[2], from[3]);
}

static inline void mdy_v4_store(int32_t *to, mdy_v4_t v)
{
    memcpy(to, v.lane, sizeof v.lane);
}

/** The lowest byte of each lane. */
static inline void mdy_v4_store8(int8_t *to, mdy_v4_t v)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        to[i] = (int8_t)v.lane[i];
    }
}

/** The lower half of each lane. */
static inline void mdy_v4_store16(int16_t *to, mdy_v4_t v)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        to[i] = (int16_t)v.lane[i];
    }
}

static inline mdy_v4_t mdy_v4_add(mdy_v4_t a, mdy_v4_t b)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        a.lane[i] = (int32_t)((uint32_t)a.lane[i] + (uint32_t)b.lane[i]);
    }
    return a;
}

static inline mdy_v4_t mdy_v4_mul(mdy_v4_t a, mdy_v4_t b)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        a.lane[i] = (int32_t)((uint32_t)a.lane[i] * (uint32_t)b.lane[i]);
    }
    return a;
}

/** sum + a * x. */
static inline mdy_v4_t mdy_v4_add_times(mdy_v4_t sum, mdy_v4_t a, int32_t x)
{
    return mdy_v4_add(sum, mdy_v4_mul(a, mdy_v4_all(x)));
}

/** a * 2^n, halves up; n = -31 .. 0. */
static inline mdy_v4_t mdy_v4_shift(mdy_v4_t a, mdy_v4_t n)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        a.lane[i] = (int32_t)mdy_round_shift(a.lane[i], -n.lane[i]);
    }
    return a;
}

/** The largest of the lanes and of `than`. */
static inline int32_t mdy_v4_max(mdy_v4_t a, int32_t than)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        than = a.lane[i] > than ? a.lane[i] : than;
    }
    return than;
}

/** Lanes of `zero` where those of a are 0, else of `other`; a is not negative. */
static inline mdy_v4_t mdy_v4_where_zero(mdy_v4_t a, mdy_v4_t zero, mdy_v4_t other)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        a.lane[i] = a.lane[i] == 0 ? zero.lane[i] : other.lane[i];
    }
    return a;
}

/** mdy_requantize for shifts of at most MDY_MVE_SHIFT, or of 0 where mult is 0. */
static inline mdy_v4_t mdy_v4_requantize(mdy_v4_t acc, mdy_v4_t mult, mdy_v4_t shift)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        acc.lane[i] = mdy_requantize(acc.lane[i], mult.lane[i], shift.lane[i]);
    }
    return acc;
}

/** mdy_v4_requantize with one multiplier and shift for all lanes. */
static inline mdy_v4_t mdy_v4_scale_down(mdy_v4_t x, int32_t mult, int32_t shift)
{
    return mdy_v4_requantize(x, mdy_v4_all(mult), mdy_v4_all(shift));
}

/** mdy_output8. */
static inline mdy_v4_t mdy_v4_output(mdy_v4_t value, mdy_v4_t zero, mdy_v4_t low, mdy_v4_t high)
{
    for (uint32_t i = 0; i < MDY_LANES; i++) {
        value.lane[i] = mdy_output8(value.lane[i], zero.lane[i], low.lane[i], high.lane[i]);
    }
    return value;
}

/** Copies so many channels, at most 16, of pixels that lie `pitch` bytes apart to pixels 16 bytes apart; one or more. */
static inline void mdy_mve_pixels(int8_t *to, const int8_t *from, uint32_t pitch, uint32_t pixels, uint32_t channels)
{
    for (; pixels > 0; pixels--, to += MDY_MVE_BYTES, from += pitch) {
        memcpy(to, from, channels);
    }
}

/** Copies bytes, of which there may be none. */
static inline void mdy_mve_copy(int8_t *to, const int8_t *from, uint32_t count)
{
    memcpy(to, from, count);
}

/** Fills bytes, of which there may be none. */
static inline void mdy_mve_fill(int8_t *to, int32_t value, uint32_t count)
{
    memset(to, value, count);
}

/** begin[0 .. 3] plus sums of products of `count` bytes at x with as many at w, w + pitch, w + 2 pitch, w + 3 pitch. */
static inline mdy_v4_t mdy_mve_dot(const int32_t *begin, const int8_t *x, const int8_t *w, uint32_t pitch,
                                   uint32_t count)
{
    mdy_v4_t sums = mdy_v4_load(begin);
    for (uint32_t o = 0; o < MDY_LANES; o++) {
        for (uint32_t i = 0; i < count; i++) {
            sums.lane[o] = (int32_t)((uint32_t)sums.lane[o] + (uint32_t)(x[i] * w[o * pitch + i]));
        }
    }
    return sums;
}

/** Sums of `count` bytes at w, w + pitch, w + 2 pitch, w + 3 pitch. */
static inline mdy_v4_t mdy_mve_sums(const int8_t *w, uint32_t pitch, uint32_t count)
{
    mdy_v4_t sums = mdy_v4_all(0);
    for (uint32_t o = 0; o < MDY_LANES; o++) {
        for (uint32_t i = 0; i < count; i++) {
            sums.lane[o] += w[o * pitch + i];
        }
    }
    return sums;
}

/** Sums of products of `count` halfwords with as many bytes of some rows, one to four, `pitch` bytes apart. */
static inline void mdy_mve_dot16(const int16_t *x, const int8_t *w, uint32_t pitch, uint32_t rows, uint32_t count,
                                 int32_t sums[MDY_LANES])
{
    for (uint32_t row = 0; row < rows; row++, w += pitch) {
        sums[row] = 0;
        for (uint32_t i = 0; i < count; i++) {
            sums[row] += x[i] * w[i];
        }
    }
}

/**
 * Adds to four sums what the rows of windows three pixels wide bring, which begin at x. Pixels of a row, and taps at w,
 * are 16 bytes apart; one row or more.
 */
static inline void mdy_mve_threes(mdy_v4_t acc[4], const int8_t *const x[4], const int8_t *w, uint32_t rows,
                                  uint32_t row_bytes)
{
    for (uint32_t row = 0; row < rows; row++, w += 3 * MDY_MVE_BYTES) {
        for (uint32_t i = 0; i < 4; i++) {
            const int8_t *first = x[i] + row * row_bytes;
            for (uint32_t at = 0; at < 3 * MDY_MVE_BYTES; at += MDY_MVE_BYTES) {
                acc[i] = mdy_v4_add(acc[i], mdy_v4_mul(mdy_v4_load8(first + at), mdy_v4_load8(w + at)));
            }
        }
    }
}

#endif

/** The largest shift that mdy_v4_requantize takes. */
#define MDY_MVE_SHIFT (MDY_ROUND_ONCE ? -1 : 0)

/** How four output channels side by side are made of their sums. */
typedef struct {
    mdy_v4_t mult, shift;
    mdy_v4_t zero; /* of an output that is always the same: that */
    mdy_v4_t low, high;
    int is_usual; /* whether mdy_mve_output makes them; else mdy_conv_output does */
} mdy_mve_outputs_t;

/** Output channels o to o + 3. */
static inline mdy_mve_outputs_t mdy_mve_outputs(const mdy_conv_t *p, uint32_t o)
{
    const mdy_v4_t shift = mdy_v4_load8(p->shift + o);
    mdy_mve_outputs_t q;
    q.mult = mdy_v4_load(p->mult + o);
    q.shift = mdy_v4_where_zero(q.mult, mdy_v4_all(0), shift);
    q.zero = mdy_v4_where_zero(q.mult, shift, mdy_v4_all(p->y_zero));
    q.low = mdy_v4_all(p->act_min);
    q.high = mdy_v4_all(p->act_max);
    q.is_usual = mdy_v4_max(mdy_v4_where_zero(q.mult, mdy_v4_all(-1), shift), -1) <= MDY_MVE_SHIFT;
    return q;
}

/** Stores the outputs o to o + 3 of a pixel that are not usual. */
void mdy_mve_store_rare(const mdy_conv_t *p, uint32_t o, mdy_v4_t acc, int8_t *y);

/** Stores the outputs o to o + 3 of a pixel. */
static inline void mdy_mve_store(const mdy_conv_t *p, uint32_t o, const mdy_mve_outputs_t *q, mdy_v4_t acc, int8_t *y)
{
    if (q->is_usual) {
        mdy_v4_store8(y, mdy_v4_output(mdy_v4_requantize(acc, q->mult, q->shift), q->zero, q->low, q->high));
    } else {
        mdy_mve_store_rare(p, o, acc, y);
    }
}

/** Four gradients side by side. */
static inline mdy_v4_t mdy_v4_load_grad(const mdy_grad_t *from)
{
#if MDY_GRAD_BITS == 8
    return mdy_v4_load8(from);
#else
    return mdy_v4_load16(from);
#endif
}

/** Directions of the family's dense convolution that have a file of their own; see mdy/ops/conv2d.h. */
void mdy_mve_conv2d_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                            int32_t *acc_init);
void mdy_mve_conv2d_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel,
                                   const mdy_view_t *dy, mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace);
void mdy_mve_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                    const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace);

#ifdef __cplusplus
}
#endif

#endif
