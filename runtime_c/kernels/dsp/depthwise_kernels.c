/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution for cores with the DSP extension (Armv7E-M, Armv8-M): SMLAD adds two products of halfwords.
 *
 * Neighbours of a window lie in neighbouring pixels, C bytes apart. So the rows of four channels are turned into rows of
 * halfwords, less the input's zero point and with the padding as zeros, of which one word holds two taps. They lie in a
 * ring: the next output rows need only those below. Four outputs of a row are made at once. What has no room is the
 * portable kernel's.
 */
#include "mdy/ops/depthwise.h"

#include <string.h>

#include "mdy/dsp.h"

#define CHANNELS 4u /* that are turned together: a word of the input */
#define TAPS_MAX 7u /* of a row of a window */

/* Columns of the output in one go, and where things lie for them in the workspace. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_view_t *x;
    mdy_band_t columns;
    uint32_t words;     /* of a filter's row, with an empty tap in front or behind */
    uint32_t row_words; /* of a turned row of one channel */
    uint32_t ring;      /* rows that are kept */
    uint32_t *rows;     /* (CHANNELS, ring, row_words) */
    uint32_t *filter;   /* of one channel: (kernel_h, words, 2) */
} job_t;

#define ROWS_MAX 4u /* output rows that are made channel by channel */
#define WINDOWS_MAX                                                                                                    \
    (TAPS_MAX + 2u * (ROWS_MAX - 1u)) /* rows of the input that they read: fewer are made at a larger stride */

/* Some of the rows of four channels. */
typedef struct {
    const uint32_t *x[WINDOWS_MAX]; /* turned rows of the first channel, from the first window's on */
    int8_t *y[ROWS_MAX];            /* the first channel's first outputs */
    uint32_t rows;
    uint32_t first; /* of the four channels */
} band_t;

/* Words of a turned row for so many outputs, which are made in fours. */
static uint32_t row_words_of(const mdy_conv_t *p, uint32_t outputs)
{
    const uint32_t fours = (outputs + MDY_DSP_PIXELS - 1) / MDY_DSP_PIXELS;
    return (fours * MDY_DSP_PIXELS * p->stride_w + 1u) / 2u + mdy_dsp_filter_words(p);
}

static uint32_t ring_words(const mdy_conv_t *p, uint32_t ring, uint32_t outputs)
{
    return CHANNELS * ring * row_words_of(p, outputs);
}

static uint32_t room_for(const mdy_conv_t *p, uint32_t ring, uint32_t outputs)
{
    return (ring_words(p, ring, outputs) + p->kernel_h * 2u * mdy_dsp_filter_words(p)) * (uint32_t)sizeof(uint32_t);
}

/* The place of an input row in the ring, of channel 0. */
static uint32_t *turned_row(const job_t *job, int32_t iy)
{
    const uint32_t turn = (uint32_t)(iy + (int32_t)job->ring * (1 << 10)) % job->ring; /* iy is -255 at least */
    return job->rows + turn * job->row_words;
}

/* Writes a word of each of four channels from two pixels; NULL: zeros. */
static inline void turn(const int8_t *first, const int8_t *second, uint32_t minus_zero, uint32_t *to, uint32_t pitch)
{
    const uint32_t one = first != NULL ? mdy_load4(first) : 0;
    const uint32_t two = second != NULL ? mdy_load4(second) : 0;
    const uint32_t one_even = first != NULL ? mdy_add_even(minus_zero, one) : 0;
    const uint32_t one_odd = first != NULL ? mdy_add_odd(minus_zero, one) : 0;
    const uint32_t two_even = second != NULL ? mdy_add_even(minus_zero, two) : 0;
    const uint32_t two_odd = second != NULL ? mdy_add_odd(minus_zero, two) : 0;
    uint32_t *channel_2 = to + 2 * pitch;
    to[0] = mdy_lows(one_even, two_even);
    to[pitch] = mdy_lows(one_odd, two_odd);
    channel_2[0] = mdy_highs(one_even, two_even);
    channel_2[pitch] = mdy_highs(one_odd, two_odd);
}

/* The same for pairs of pixels side by side, `step` bytes from one to the next. */
static __attribute__((noinline)) void turn_pairs(const int8_t *pixels, uint32_t step, uint32_t minus_zero, uint32_t *to,
                                                 uint32_t pitch, uint32_t pairs)
{
    for (uint32_t *end = to + pairs; to != end; to++, pixels += 2 * step) {
        turn(pixels, pixels + step, minus_zero, to, pitch);
    }
}

/* Turns four channels of an input row; what is beyond the input is zeros. */
static void turn_row(const job_t *job, int32_t iy, uint32_t channel)
{
    const mdy_conv_t *p = job->p;
    const int32_t width = p->in.w;
    const int32_t words = (int32_t)job->row_words;
    const uint32_t pitch = job->ring * job->row_words;
    const uint32_t minus_zero = mdy_dsp_minus_zero(p);
    const int32_t first = job->columns.begin * p->stride_w - p->pad_left; /* column of word 0 */
    const int holds = iy >= 0 && iy < p->in.h;
    uint32_t *to = turned_row(job, iy);
    if (!holds) {
        for (int32_t word = 0; word < words; word++) {
            turn(NULL, NULL, 0, to + word, pitch);
        }
        return;
    }
    const int8_t *row = mdy_row(job->x, iy) + channel;
    /* Words of two pixels of the input: from the first one that begins inside to the last one that ends inside. */
    const int32_t begin = first < 0 ? (1 - first) / 2 : 0;
    const int32_t inside = (width - first) / 2;
    const int32_t end = inside < words ? inside : words;
    if (begin < end) {
        turn_pairs(row + (first + 2 * begin) * p->in.c, p->in.c, minus_zero, to + begin, pitch,
                   (uint32_t)(end - begin));
    }
    for (int32_t word = 0; word < words; word++) {
        if (word == begin && begin < end) {
            word = end;
        }
        if (word < words) {
            const int32_t ix = first + 2 * word;
            const int8_t *left = ix >= 0 && ix < width ? row + ix * p->in.c : NULL;
            const int8_t *right = ix + 1 >= 0 && ix + 1 < width ? row + (ix + 1) * p->in.c : NULL;
            turn(left, right, minus_zero, to + word, pitch);
        }
    }
}

#ifdef MDY_DSP
/* What makes outputs of a channel's row with a 3 x 3 window, at the offsets that are named. */
typedef struct {
    const uint32_t *x[3]; /*  0: the turned rows of the window */
    uint32_t filter[6];   /* 12: of each row of the filter the first two taps and the last two */
    int32_t bias;         /* 36: twice */
    int32_t mult;         /* 40 */
    int32_t offset;       /* 44 */
    uint32_t shift;       /* 48 */
    int8_t *y;            /* 52: of the next output */
    uint32_t step;        /* 56: from output to output */
    uint32_t end;         /* 60: bytes of a turned row that are used up at the end */
} three_t;
_Static_assert(offsetof(three_t, filter) == 12, "read by instructions");
_Static_assert(offsetof(three_t, bias) == 36, "read by instructions");
_Static_assert(offsetof(three_t, offset) == 44, "read by instructions");
_Static_assert(offsetof(three_t, y) == 52, "read by instructions");
_Static_assert(offsetof(three_t, end) == 60, "read by instructions");

/* clang-format off: instructions, one in a line */
/* Adds a row of the window to four outputs that are two pixels of the input apart, as MDY_DSP_THREE does. */
#define TWO_APART(row, filter, first)                                                                                  \
    "ldr    r1, [%[at], #" row "]\n"                                                                                   \
    "ldrd   r10, r11, [%[at], #" filter "]\n"                                                                          \
    "add    r1, r1, lr\n"                                                                                              \
    "ldm    r1, {r6, r8, r9, r12}\n" first "ldr    r6, [r1, #16]\n"                                                    \
    "smlabt r2, r8, r11, r2\n"                                                                                         \
    "smlabt r3, r9, r11, r3\n"                                                                                         \
    "smlabt r4, r12, r11, r4\n"                                                                                        \
    "smlabt r5, r6, r11, r5\n"
#define FIRST_BY_TWO                                                                                                   \
    "smuad  r2, r6, r10\n"                                                                                             \
    "smuad  r3, r8, r10\n"                                                                                             \
    "smuad  r4, r9, r10\n"                                                                                             \
    "smuad  r5, r12, r10\n"
#define NEXT_BY_TWO                                                                                                    \
    "smlad  r2, r6, r10, r2\n"                                                                                         \
    "smlad  r3, r8, r10, r3\n"                                                                                         \
    "smlad  r4, r9, r10, r4\n"                                                                                         \
    "smlad  r5, r12, r10, r5\n"
/* Requantises and stores them, and goes on if there are more. */
#define FINISH(bytes)                                                                                                  \
    "ldrd   r6, r8, [%[at], #36]\n"                                                                                    \
    "ldrd   r9, r10, [%[at], #44]\n"                                                                                   \
    "add    r2, r6, r2, lsl #1\n"                                                                                      \
    "add    r3, r6, r3, lsl #1\n"                                                                                      \
    "add    r4, r6, r4, lsl #1\n"                                                                                      \
    "add    r5, r6, r5, lsl #1\n" MDY_DSP_REQUANTIZE("r2", "r8", "r9", "r10", "r12")                                   \
        MDY_DSP_REQUANTIZE("r3", "r8", "r9", "r10", "r12") MDY_DSP_REQUANTIZE("r4", "r8", "r9", "r10", "r12")          \
            MDY_DSP_REQUANTIZE("r5", "r8", "r9", "r10", "r12") "ldrd   r6, r8, [%[at], #52]\n"                         \
                                                               "strb   r2, [r6]\n"                                     \
                                                               "strb   r3, [r6, r8]\n"                                 \
                                                               "add    r6, r6, r8, lsl #1\n"                           \
                                                               "strb   r4, [r6]\n"                                     \
                                                               "strb   r5, [r6, r8]\n"                                 \
                                                               "add    r6, r6, r8, lsl #1\n"                           \
                                                               "str    r6, [%[at], #52]\n"                             \
                                                               "ldr    r12, [%[at], #60]\n"                            \
                                                               "add    lr, lr, #" bytes "\n"                           \
                                                               "cmp    lr, r12\n"                                      \
                                                               "bne    1b\n"
static __attribute__((noinline)) void three_by_three(three_t *three)
{
    register three_t *at __asm__("r0") = three;
    __asm__ volatile("mov    lr, #0\n"
                     "1:\n" MDY_DSP_THREE("0", "12", MDY_DSP_FIRST) MDY_DSP_THREE("4", "20", MDY_DSP_NEXT)
                         MDY_DSP_THREE("8", "28", MDY_DSP_NEXT) FINISH("8")
                     : [at] "+r"(at)
                     :
                     : MDY_DSP_CLOBBERED);
}

static __attribute__((noinline)) void three_by_three_by_two(three_t *three)
{
    register three_t *at __asm__("r0") = three;
    __asm__ volatile("mov    lr, #0\n"
                     "1:\n" TWO_APART("0", "12", FIRST_BY_TWO) TWO_APART("4", "20", NEXT_BY_TWO)
                         TWO_APART("8", "28", NEXT_BY_TWO) FINISH("16")
                     : [at] "+r"(at)
                     :
                     : MDY_DSP_CLOBBERED);
}
/* clang-format on */

static void make_outputs(const mdy_conv_t *p, three_t *three)
{
    if (p->stride_w == 1) {
        three_by_three(three);
    } else {
        three_by_three_by_two(three);
    }
}

/* Whether a channel's outputs are made by three_by_three. */
static int is_three_by_three(const mdy_conv_t *p, uint32_t channel, const int32_t *start)
{
    return p->kernel_h == 3 && p->kernel_w == 3 && start == NULL && mdy_dsp_is_common(p, channel);
}

/* Outputs beyond the last whole four of a row. */
static void last_outputs(const mdy_conv_t *p, three_t *three, int8_t *out, uint32_t count)
{
    int8_t last[MDY_DSP_PIXELS];
    for (uint32_t ky = 0; ky < 3; ky++) {
        three->x[ky] += three->end / sizeof(uint32_t);
    }
    three->y = last;
    three->step = 1;
    three->end = 2 * MDY_DSP_PIXELS * p->stride_w;
    make_outputs(p, three);
    for (uint32_t ox = 0; ox < count; ox++) {
        out[ox * p->in.c] = last[ox];
    }
}

/*
 * One channel of some output rows with a 3 x 3 window. Rows end with a four of outputs, of which some may be too many:
 * where the next row lies behind, they go where its first outputs will be; else they are made apart.
 */
static void rows_of_three(const job_t *job, const int8_t *w, const band_t *band, uint32_t channel, int is_in_line)
{
    const mdy_conv_t *p = job->p;
    const uint32_t channels = p->in.c;
    const uint32_t count = (uint32_t)job->columns.end - job->columns.begin;
    const uint32_t four = 2 * MDY_DSP_PIXELS * p->stride_w; /* bytes of a turned row for four outputs */
    const uint32_t turned = (channel - band->first) * (job->ring * job->row_words);
    const mdy_dsp_output_t q = mdy_dsp_output(p, channel);
    const uint32_t *const *x = band->x;
    three_t three;
    three.bias = 2 * p->bias[channel];
    three.mult = q.mult;
    three.offset = q.offset;
    three.shift = q.shift;
    w += channel;
    for (uint32_t ky = 0; ky < 3; ky++, w += 3 * channels) {
        const uint32_t middle = (uint32_t)w[channels];
        three.filter[2 * ky] = ((uint32_t)w[0] & 0xFFFFu) | middle << 16;
        three.filter[2 * ky + 1] = (middle & 0xFFFFu) | (uint32_t)w[2 * channels] << 16;
    }
    for (uint32_t row = 0; row < band->rows; row++, x += p->stride_h) {
        const int spills = is_in_line && row + 1 < band->rows;
        const uint32_t fours = spills ? (count + MDY_DSP_PIXELS - 1) / MDY_DSP_PIXELS : count / MDY_DSP_PIXELS;
        three.x[0] = x[0] + turned;
        three.x[1] = x[1] + turned;
        three.x[2] = x[2] + turned;
        three.y = band->y[row] + (channel - band->first);
        three.step = channels;
        three.end = fours * four;
        if (fours > 0) {
            make_outputs(p, &three);
        }
        if (fours * MDY_DSP_PIXELS < count) {
            int8_t *out = band->y[row] + (channel - band->first) + fours * MDY_DSP_PIXELS * channels;
            last_outputs(p, &three, out, count - fours * MDY_DSP_PIXELS);
        }
    }
}
#endif

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

/* As mdy_dsp_add_row, of outputs that are two pixels of the input apart. */
static __attribute__((noinline)) void add_row_by_two(const uint32_t *x, const uint32_t *w, uint32_t words,
                                                     int32_t acc[4])
{
    int32_t a = acc[0];
    int32_t b = acc[1];
    int32_t c = acc[2];
    int32_t d = acc[3];
    for (const uint32_t *end = w + 2 * words; w != end; w += 2, x++) {
        a = mdy_smlad(x[0], w[0], a);
        b = mdy_smlad(x[1], w[0], b);
        c = mdy_smlad(x[2], w[0], c);
        d = mdy_smlad(x[3], w[0], d);
    }
    acc[0] = a;
    acc[1] = b;
    acc[2] = c;
    acc[3] = d;
}

/* One channel of an output row with any window. start: sums so far, C apart, or NULL: the bias. */
static void row_of_any(const job_t *job, const uint32_t *const *x_rows, uint32_t channel, const int32_t *start,
                       int8_t *y)
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
        for (uint32_t ky = 0; ky < p->kernel_h; ky++, w += 2 * job->words) {
            if (p->stride_w == 1) {
                mdy_dsp_add_row(x_rows[ky] + at, w, job->words, acc);
            } else {
                add_row_by_two(x_rows[ky] + at, w, job->words, acc);
            }
        }
        mdy_dsp_store(p, channel, acc, y + ox * channels, channels, left);
    }
}

/* One channel of some rows that are turned. start: sums so far of the first output, or NULL: the bias. */
static void channel_rows(const job_t *job, const int8_t *w, const band_t *band, uint32_t channel, int is_in_line,
                         const int32_t *start, uint32_t start_row)
{
#ifdef MDY_DSP
    if (is_three_by_three(job->p, channel, start)) {
        rows_of_three(job, w, band, channel, is_in_line);
        return;
    }
#endif
    (void)is_in_line;
    const mdy_conv_t *p = job->p;
    const uint32_t turned = (channel - band->first) * (job->ring * job->row_words);
    pack_filter(job, w + channel);
    for (uint32_t row = 0; row < band->rows; row++) {
        const uint32_t *x_rows[TAPS_MAX];
        for (uint32_t ky = 0; ky < p->kernel_h; ky++) {
            x_rows[ky] = band->x[row * p->stride_h + ky] + turned;
        }
        row_of_any(job, x_rows, channel, start, band->y[row] + (channel - band->first));
        start += start != NULL ? start_row : 0u;
    }
}

/* Limits four channels of some rows to the activation's range. */
static void limit(const job_t *job, const band_t *band)
{
    const mdy_conv_t *p = job->p;
    const uint32_t count = (uint32_t)job->columns.end - job->columns.begin;
    for (uint32_t row = 0; row < band->rows; row++) {
        int8_t *out = band->y[row];
        for (uint32_t ox = 0; ox < count; ox++, out += p->in.c) {
            for (uint32_t i = 0; i < CHANNELS; i++) {
                out[i] = mdy_clamp8(out[i], p->act_min, p->act_max);
            }
        }
    }
}

/* Four channels of some rows, in columns for which the workspace has room. acc_init: of the first row's first column. */
static void four_channels(const job_t *job, const int8_t *w, const mdy_view_t *y, mdy_band_t rows, uint32_t first,
                          const int32_t *acc_init, uint32_t acc_row)
{
    const mdy_conv_t *p = job->p;
    const uint32_t kept = (job->ring - p->kernel_h) / p->stride_h + 1;   /* rows whose inputs are kept */
    const uint32_t read = (WINDOWS_MAX - p->kernel_h) / p->stride_h + 1; /* rows whose windows have room in the band */
    const uint32_t some = kept < read ? kept : read;
    const uint32_t together = some < ROWS_MAX ? some : ROWS_MAX;
    const uint32_t count = (uint32_t)job->columns.end - job->columns.begin;
    const int is_in_line = count == p->out.w && y->rows >= p->out.h && count >= MDY_DSP_PIXELS;
    int32_t turned = INT32_MIN;
    band_t band = {.first = first};
    for (int32_t oy = rows.begin; oy < rows.end; oy += (int32_t)band.rows) {
        band.rows = (uint32_t)(rows.end - oy) < together ? (uint32_t)(rows.end - oy) : together;
        const int32_t begin = oy * p->stride_h - p->pad_top;
        const int32_t end = begin + ((int32_t)band.rows - 1) * p->stride_h + p->kernel_h;
        for (int32_t iy = begin; iy < end; iy++) {
            if (iy >= turned) {
                turn_row(job, iy, first);
            }
            band.x[iy - begin] = turned_row(job, iy);
        }
        turned = end;
        for (uint32_t row = 0; row < band.rows; row++) {
            band.y[row] = mdy_row(y, oy + (int32_t)row) + job->columns.begin * p->in.c + first;
        }
        for (uint32_t channel = first; channel < first + CHANNELS; channel++) {
            const int32_t *start = acc_init == NULL ? NULL : acc_init + channel;
            channel_rows(job, w, &band, channel, is_in_line, start, acc_row);
        }
        if (mdy_dsp_is_limited(p)) {
            limit(job, &band);
        }
        acc_init += acc_init != NULL ? acc_row * band.rows : 0u;
    }
}

static void dsp_depthwise_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                                  mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    const uint32_t height = (uint32_t)tile.rows.end - tile.rows.begin;
    uint32_t ring = p->kernel_h + (height > 0 ? height - 1 : 0u) * p->stride_h;
    while (ring > p->kernel_h && room_for(p, ring, width) > workspace.bytes) {
        ring--;
    }
    uint32_t most = width;
    while (most > 0 && room_for(p, ring, most) > workspace.bytes) {
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
            .words = mdy_dsp_filter_words(p),
            .row_words = row_words_of(p, most),
            .ring = ring,
            .rows = (uint32_t *)(void *)workspace.at,
            .filter = (uint32_t *)(void *)workspace.at + ring_words(p, ring, most),
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
    .backward_input = mdy_dsp_depthwise_backward_input,
    .backward_weight = mdy_depthwise_backward_weight,
    .weight_offset = mdy_depthwise_weight_offset,
};
