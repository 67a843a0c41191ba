/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution for cores with the DSP extension (Armv7E-M, Armv8-M): SMLAD adds two products of halfwords.
 *
 * Neighbours of a window lie in neighbouring pixels, C bytes apart. So the rows of four channels are turned into rows of
 * halfwords, less the input's zero point and with the padding as zeros, of which one word holds two taps. They lie in a
 * ring: the next output row needs only those below. Four outputs of a row are made at once: two of them begin in the
 * middle of a word, and take filters that are moved by one. What has no room is the portable kernel's.
 */
#include "mdy/ops/depthwise.h"

#include "mdy/dsp.h"

#define CHANNELS 4u   /* that are turned together: a word of the input */
#define TAPS_MAX 7u   /* of a row of a window */

/* Columns of the output in one go, and where things lie for them in the workspace. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_view_t *x;
    mdy_band_t columns;
    uint32_t words;     /* of a filter's row, with an empty tap in front or behind */
    uint32_t row_words; /* of a turned row of one channel */
    uint32_t *rows;     /* (CHANNELS, kernel_h, row_words) */
    uint32_t *filter;   /* of one channel: (kernel_h, words, 2) */
} job_t;

static uint32_t filter_words(const mdy_conv_t *p)
{
    return p->kernel_w / 2u + 1u;
}

/* Words of a turned row for so many outputs, which are made in fours. */
static uint32_t row_words_of(const mdy_conv_t *p, uint32_t outputs)
{
    const uint32_t fours = (outputs + MDY_DSP_PIXELS - 1) / MDY_DSP_PIXELS;
    return (fours * MDY_DSP_PIXELS * p->stride_w + 1u) / 2u + filter_words(p);
}

static uint32_t ring_words(const mdy_conv_t *p, uint32_t outputs)
{
    return CHANNELS * p->kernel_h * row_words_of(p, outputs);
}

static uint32_t room_for(const mdy_conv_t *p, uint32_t outputs)
{
    return (ring_words(p, outputs) + p->kernel_h * 2u * filter_words(p)) * (uint32_t)sizeof(uint32_t);
}

/* The place of an input row in the ring, of channel 0. */
static uint32_t *turned_row(const job_t *job, int32_t iy)
{
    const uint32_t turn = (uint32_t)(iy + (int32_t)job->p->kernel_h * (1 << 16)) % job->p->kernel_h;
    return job->rows + turn * job->row_words;
}

/* Four channels of a pixel in halfwords: 0 and 2, 1 and 3; zeros outside of the row. */
static inline void widen(const job_t *job, const int8_t *pixels, int32_t ix, uint32_t minus_zero, uint32_t halves[2])
{
    const int inside = ix >= 0 && ix < job->p->in.w;
    const uint32_t bytes = inside ? mdy_load4(pixels + ix * job->p->in.c) : 0;
    halves[0] = inside ? mdy_add_even(minus_zero, bytes) : 0;
    halves[1] = inside ? mdy_add_odd(minus_zero, bytes) : 0;
}

/* Writes a word of each of the four channels from two pixels. */
static inline void place(const uint32_t first[2], const uint32_t second[2], uint32_t *to, uint32_t pitch)
{
    to[0] = mdy_lows(first[0], second[0]);
    to[pitch] = mdy_lows(first[1], second[1]);
    to[2 * pitch] = mdy_highs(first[0], second[0]);
    to[3 * pitch] = mdy_highs(first[1], second[1]);
}

/* Turns four channels of an input row; one beyond the input is zeros. */
static void turn_row(const job_t *job, int32_t iy, uint32_t channel)
{
    const mdy_conv_t *p = job->p;
    const int32_t step = p->in.c;
    const uint32_t pitch = p->kernel_h * job->row_words;
    const uint32_t minus_zero = ((uint32_t)-p->x_zero & 0xFFFFu) * 0x10001u;
    const int32_t first = job->columns.begin * p->stride_w - p->pad_left;
    const int holds = iy >= 0 && iy < p->in.h;
    const int8_t *pixels = holds ? mdy_row(job->x, iy) + channel : NULL;
    uint32_t *to = turned_row(job, iy);
    for (int32_t pair = 0; pair < (int32_t)job->row_words; pair++, to++) {
        const int32_t ix = first + 2 * pair;
        uint32_t left[2] = {0, 0};
        uint32_t right[2] = {0, 0};
        if (!holds || ix + 1 < 0 || ix >= p->in.w) {
            place(left, right, to, pitch);
        } else if (ix >= 0 && ix + 1 < p->in.w) {
            const int8_t *both = pixels + ix * step;
            const uint32_t one = mdy_load4(both);
            const uint32_t two = mdy_load4(both + step);
            left[0] = mdy_add_even(minus_zero, one);
            left[1] = mdy_add_odd(minus_zero, one);
            right[0] = mdy_add_even(minus_zero, two);
            right[1] = mdy_add_odd(minus_zero, two);
            place(left, right, to, pitch);
        } else {
            widen(job, pixels, ix, minus_zero, left);
            widen(job, pixels, ix + 1, minus_zero, right);
            place(left, right, to, pitch);
        }
    }
}

/* A channel's filter in words: of each row those that begin with its first tap, and beside each the one moved by one. */
static void pack_filter(const job_t *job, const int8_t *w)
{
    const mdy_conv_t *p = job->p;
    uint32_t *packed = job->filter;
    for (uint32_t ky = 0; ky < p->kernel_h; ky++) {
        uint32_t before = 0;
        for (uint32_t kx = 0; kx < 2 * job->words; kx += 2) {
            const uint32_t even = kx < p->kernel_w ? (uint32_t)w[kx * p->in.c] & 0xFFFFu : 0;
            const uint32_t odd = kx + 1 < p->kernel_w ? (uint32_t)w[(kx + 1) * p->in.c] & 0xFFFFu : 0;
            *packed++ = even | odd << 16;
            *packed++ = before | even << 16;
            before = odd;
        }
        w += p->kernel_w * p->in.c;
    }
}

/* Adds a word of a filter to four outputs, one pixel of the input apart. */
#define ADD_NEXT(x, w, number)                                                                                         \
    do {                                                                                                               \
        const uint32_t next_ = (x)[(number) + 1];                                                                      \
        a = mdy_smlad(now, (w)[2 * (number)], a);                                                                      \
        b = mdy_smlad(now, (w)[2 * (number) + 1], b);                                                                  \
        c = mdy_smlad(next_, (w)[2 * (number)], c);                                                                    \
        d = mdy_smlad(next_, (w)[2 * (number) + 1], d);                                                                \
        now = next_;                                                                                                   \
    } while (0)

/* Adds a row of a filter to four outputs that begin at x, one pixel of the input apart. */
static inline void add_row(const uint32_t *x, const uint32_t *w, uint32_t words, int32_t acc[4])
{
    uint32_t now = x[0];
    int32_t a = acc[0];
    int32_t b = acc[1];
    int32_t c = acc[2];
    int32_t d = acc[3];
    ADD_NEXT(x, w, 0);
    if (words > 1) {
        ADD_NEXT(x, w, 1);
    }
    if (words > 2) {
        ADD_NEXT(x, w, 2);
    }
    if (words > 3) {
        ADD_NEXT(x, w, 3);
    }
    acc[0] = a;
    acc[1] = b;
    acc[2] = c;
    acc[3] = d;
}

/* The same of outputs that are two pixels apart. */
static inline void add_row_by_two(const uint32_t *x, const uint32_t *w, uint32_t words, int32_t acc[4])
{
    for (uint32_t number = 0; number < words; number++) {
        const uint32_t taps = w[2 * number];
        acc[0] = mdy_smlad(x[number], taps, acc[0]);
        acc[1] = mdy_smlad(x[number + 1], taps, acc[1]);
        acc[2] = mdy_smlad(x[number + 2], taps, acc[2]);
        acc[3] = mdy_smlad(x[number + 3], taps, acc[3]);
    }
}

/* One channel of an output row. start: sums so far, C apart, or NULL: the bias. */
static inline void channel_row(const job_t *job, const uint32_t *const *x_rows, uint32_t words, uint32_t channel,
                               const int32_t *start, int8_t *y)
{
    const mdy_conv_t *p = job->p;
    const uint32_t channels = p->in.c;
    const uint32_t count = (uint32_t)job->columns.end - job->columns.begin;
    for (uint32_t ox = 0; ox < count; ox += MDY_DSP_PIXELS) {
        const uint32_t left = count - ox < MDY_DSP_PIXELS ? count - ox : MDY_DSP_PIXELS;
        const uint32_t at = ox * p->stride_w / 2u;
        int32_t acc[MDY_DSP_PIXELS];
        for (uint32_t i = 0; i < MDY_DSP_PIXELS; i++) {
            acc[i] = start == NULL ? p->bias[channel] : i < left ? start[(ox + i) * channels] : 0;
        }
        const uint32_t *w = job->filter;
        for (uint32_t ky = 0; ky < p->kernel_h; ky++, w += 2 * words) {
            if (p->stride_w == 1) {
                add_row(x_rows[ky] + at, w, words, acc);
            } else {
                add_row_by_two(x_rows[ky] + at, w, words, acc);
            }
        }
        mdy_dsp_store(p, channel, acc, y + ox * channels, channels, left);
    }
}

/* Four channels of some rows, in columns for which the workspace has room. acc_init: of the first row's first column. */
static void four_channels(const job_t *job, const int8_t *w, const mdy_view_t *y, mdy_band_t rows, uint32_t first,
                          const int32_t *acc_init, uint32_t acc_row)
{
    const mdy_conv_t *p = job->p;
    const uint32_t *x_rows[TAPS_MAX];
    const uint32_t pitch = p->kernel_h * job->row_words;
    int32_t turned = INT32_MIN;
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        const int32_t iy0 = oy * p->stride_h - p->pad_top;
        for (int32_t iy = iy0 > turned ? iy0 : turned; iy < iy0 + p->kernel_h; iy++) {
            turn_row(job, iy, first);
        }
        turned = iy0 + p->kernel_h;
        int8_t *out = mdy_row(y, oy) + job->columns.begin * p->in.c + first;
        for (uint32_t channel = 0; channel < CHANNELS; channel++) {
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                x_rows[ky] = turned_row(job, iy0 + ky) + channel * pitch;
            }
            const int32_t *start = acc_init == NULL ? NULL : acc_init + first + channel;
            pack_filter(job, w + first + channel);
            if (job->words == 2) { /* the windows of most networks: the row is written out */
                channel_row(job, x_rows, 2, first + channel, start, out + channel);
            } else {
                channel_row(job, x_rows, job->words, first + channel, start, out + channel);
            }
        }
        acc_init += acc_init != NULL ? acc_row : 0u;
    }
}

static void dsp_depthwise_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                                  mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    uint32_t most = width;
    while (most > 0 && room_for(p, most) > workspace.bytes) {
        most = (most - 1) / MDY_DSP_PIXELS * MDY_DSP_PIXELS;
    }
    if (most == 0 || p->in.c % CHANNELS != 0 || p->w_zero != 0 || p->dilation_h != 1 || p->dilation_w != 1 ||
        p->stride_w > 2 || p->kernel_h > TAPS_MAX || p->kernel_w > TAPS_MAX) {
        mdy_depthwise_forward(p, w, x, y, tile, acc_init, workspace);
        return;
    }
    for (uint32_t column = 0; column < width; column += most) {
        const uint32_t end = column + most < width ? column + most : width;
        const job_t job = {
            .p = p,
            .x = x,
            .columns = {(uint16_t)(tile.columns.begin + column), (uint16_t)(tile.columns.begin + end)},
            .words = filter_words(p),
            .row_words = row_words_of(p, most),
            .rows = (uint32_t *)(void *)workspace.at,
            .filter = (uint32_t *)(void *)workspace.at + ring_words(p, most),
        };
        const int32_t *start = acc_init == NULL ? NULL : acc_init + column * p->in.c;
        for (uint32_t channel = 0; channel < p->in.c; channel += CHANNELS) {
            four_channels(&job, w, y, tile.rows, channel, start, width * p->in.c);
        }
    }
}

const mdy_weighted_op_t mdy_depthwise = {
    .forward = dsp_depthwise_forward,
    .correct = mdy_depthwise_correct,
    .backward_input = mdy_depthwise_backward_input,
    .backward_weight = mdy_depthwise_backward_weight,
    .weight_offset = mdy_depthwise_weight_offset,
};
