/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense convolution for the host simulator: on x86 processors with AVX2, eight pixels at a time.
 *
 * What the windows of eight pixels hold, less the input's zero point, is widened to halfwords once for all outputs: a
 * vector has two taps of each pixel. Weights are widened as they are read; one instruction multiplies and adds two taps.
 * What does not fit, and any other machine, is the portable kernel's.
 */
#include "mdy/ops/conv2d.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define VECTOR __attribute__((target("avx2")))
#define PIXELS 8
#define TAPS_MAX 1280

/* One call. */
typedef struct {
    const mdy_conv_t *p;
    const int8_t *w;
    const mdy_view_t *x;
    int32_t taps;
} job_t;

/* Two taps of each of the eight pixels. */
typedef struct {
    int16_t halves[PIXELS][2];
} pair_t;

/* Puts the window of one output pixel into its lane: padding is zeros. */
static void place_pixel(const job_t *job, int32_t oy, int32_t ox, pair_t *block, uint32_t lane)
{
    const mdy_conv_t *p = job->p;
    const int32_t channels = p->in.c;
    int32_t tap = 0;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = oy * p->stride_h - p->pad_top + ky;
        const int8_t *row = iy >= 0 && iy < p->in.h ? mdy_row(job->x, iy) : NULL;
        for (int32_t kx = 0; kx < p->kernel_w; kx++) {
            const int32_t ix = ox * p->stride_w - p->pad_left + kx;
            const int8_t *pixel = row != NULL && ix >= 0 && ix < p->in.w ? row + ix * channels : NULL;
            for (int32_t c = 0; c < channels; c++, tap++) {
                block[tap / 2].halves[lane][tap % 2] = (int16_t)(pixel == NULL ? 0 : pixel[c] - p->x_zero);
            }
        }
    }
    if (tap % 2 != 0) {
        block[tap / 2].halves[lane][1] = 0;
    }
}

/* Two weights as halfwords, for all pixels. */
VECTOR static inline __m256i two_weights(const int8_t *w)
{
    int16_t both;
    memcpy(&both, w, sizeof both);
    return _mm256_cvtepi8_epi16(_mm_set1_epi16(both));
}

/* mdy_requantize and the zero point of eight sums below 2^30, limited to the activation's range. */
VECTOR static inline __m256i requantized(const mdy_conv_t *p, uint32_t o, __m256i acc)
{
    const __m256i mult = _mm256_set1_epi32(p->mult[o]);
    const int n = -p->shift[o];
#if MDY_ROUND_ONCE
    const __m256i half = _mm256_set1_epi64x(1LL << (30 + n));
    const int drop = 31 + n;
#else
    const __m256i half = _mm256_set1_epi64x(1LL << 30);
    const int drop = 31;
#endif
    const __m128i count = _mm_cvtsi32_si128(drop);
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(acc, mult), half);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), mult), half);
    const __m256i high = _mm256_slli_epi64(_mm256_srl_epi64(odd, count), 32);
    __m256i value = _mm256_blend_epi32(_mm256_srl_epi64(even, count), high, 0xAA);
#if MDY_ROUND_ONCE
    /* Bits from above the 64 have come in at the top; what is left has 33 - n at least. */
    const int fill = n > 1 ? n - 1 : 0;
    value = _mm256_srai_epi32(_mm256_slli_epi32(value, fill), fill);
#else
    if (n > 0) {
        const __m256i away = _mm256_add_epi32(_mm256_set1_epi32(1 << (n - 1)), _mm256_srai_epi32(value, 31));
        value = _mm256_srai_epi32(_mm256_add_epi32(value, away), n);
    }
#endif
    value = _mm256_add_epi32(value, _mm256_set1_epi32(p->y_zero));
    value = _mm256_max_epi32(value, _mm256_set1_epi32(p->act_min));
    return _mm256_min_epi32(value, _mm256_set1_epi32(p->act_max));
}

static int is_common(const mdy_conv_t *p, uint32_t o)
{
    return p->narrow && p->mult[o] != 0 && p->shift[o] <= 0 && p->shift[o] >= -24;
}

/* All outputs of `count` pixels side by side. start: their sums so far, or NULL: the biases. */
VECTOR static void block_outputs(const job_t *job, const pair_t *block, uint32_t count, int8_t *y, const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const uint32_t outputs = p->out.c;
    const int32_t pairs = job->taps / 2;
    const int8_t *w = job->w;
    for (uint32_t o = 0; o < outputs; o++, w += job->taps) {
        __m256i acc = _mm256_set1_epi32(p->bias[o]);
        if (start != NULL) {
            int32_t begin[PIXELS] = {0};
            for (uint32_t pixel = 0; pixel < count; pixel++) {
                begin[pixel] = start[pixel * outputs + o];
            }
            acc = _mm256_loadu_si256((const __m256i *)(const void *)begin);
        }
        __m256i more = _mm256_setzero_si256();
        int32_t pair = 0;
        for (; pair + 2 <= pairs; pair += 2) {
            const __m256i *x = (const __m256i *)(const void *)(block + pair);
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_loadu_si256(x), two_weights(w + 2 * pair)));
            more = _mm256_add_epi32(more, _mm256_madd_epi16(_mm256_loadu_si256(x + 1), two_weights(w + 2 * pair + 2)));
        }
        if (pair < pairs) {
            const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(block + pair));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, two_weights(w + 2 * pair)));
            pair++;
        }
        if (job->taps % 2 != 0) {
            const int8_t last[2] = {w[2 * pair], 0};
            const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(block + pair));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, two_weights(last)));
        }
        acc = _mm256_add_epi32(acc, more);
        int32_t values[PIXELS];
        const int common = is_common(p, o);
        _mm256_storeu_si256((__m256i *)(void *)values, common ? requantized(p, o, acc) : acc);
        for (uint32_t pixel = 0; pixel < count; pixel++) {
            y[pixel * outputs + o] = common ? (int8_t)values[pixel] : mdy_conv_output(p, o, values[pixel]);
        }
    }
}

static void host_conv2d_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                                mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    const job_t job = {p, w, x, p->kernel_h * p->kernel_w * p->group_in};
    if (!__builtin_cpu_supports("avx2") || p->group_in != p->in.c || p->w_zero != 0 || p->dilation_h != 1 ||
        p->dilation_w != 1 || job.taps > TAPS_MAX) {
        mdy_conv2d_forward(p, w, x, y, tile, acc_init, workspace);
        return;
    }
    pair_t block[TAPS_MAX / 2];
    for (int32_t oy = tile.rows.begin; oy < tile.rows.end; oy++) {
        for (int32_t ox = tile.columns.begin; ox < tile.columns.end; ox += PIXELS) {
            const int32_t left = tile.columns.end - ox;
            const uint32_t count = left < PIXELS ? (uint32_t)left : PIXELS;
            for (uint32_t pixel = 0; pixel < count; pixel++) {
                place_pixel(&job, oy, ox + (int32_t)pixel, block, pixel);
            }
            for (uint32_t pixel = count; pixel < PIXELS; pixel++) { /* lanes that nobody reads */
                for (int32_t pair = 0; pair < (job.taps + 1) / 2; pair++) {
                    memset(block[pair].halves[pixel], 0, sizeof block[pair].halves[pixel]);
                }
            }
            block_outputs(&job, block, count, mdy_row(y, oy) + ox * p->out.c, acc_init);
            acc_init += acc_init != NULL ? count * p->out.c : 0u;
        }
    }
}
#else
#define host_conv2d_forward mdy_conv2d_forward
#endif

const mdy_weighted_op_t mdy_conv2d = {
    .forward = host_conv2d_forward,
    .correct = mdy_conv2d_correct,
    .backward_input = mdy_conv2d_backward_input,
    .backward_weight = mdy_conv2d_backward_weight,
    .weight_offset = mdy_conv2d_weight_offset,
};
