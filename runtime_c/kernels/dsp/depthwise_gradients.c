/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients of a depthwise convolution's input for cores with the DSP extension: they are a depthwise convolution, too, of
 * the gradients of its output with filters from back to front. Rows of four channels are turned into rows of halfwords as
 * in the forward pass, scaled to what reaches the sums; where the layer has a stride there are zeros between them.
 */
#include "mdy/ops/depthwise.h"

#include "mdy/dsp.h"

#define CHANNELS 4u /* that are turned together: a word of gradients */
#define TAPS_MAX 7u /* of a row of a window */
#define ROWS_MAX 4u /* rows of the input for which gradients are turned together */

void mdy_dsp_add_row(const uint32_t *x, const uint32_t *w, uint32_t words, int32_t acc[4])
{
    uint32_t now = *x++;
    int32_t a = acc[0];
    int32_t b = acc[1];
    int32_t c = acc[2];
    int32_t d = acc[3];
    for (const uint32_t *end = w + 2 * words; w != end; w += 2) {
        const uint32_t next = *x++;
        a = mdy_smlad(now, w[0], a);
        b = mdy_smlad(now, w[1], b);
        c = mdy_smlad(next, w[0], c);
        d = mdy_smlad(next, w[1], d);
        now = next;
    }
    acc[0] = a;
    acc[1] = b;
    acc[2] = c;
    acc[3] = d;
}

/* Where things lie in the workspace, for some rows of the input. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_view_t *dy;
    uint32_t row_words; /* of a turned row of one channel */
    uint32_t rows;      /* that are turned at most */
    uint32_t words;     /* of a filter's row */
    uint32_t together;  /* channels whose sums are stored together: CHANNELS or 1 */
    uint32_t pitch;     /* sums of a channel's row: in.w, and up to three that are too many */
    uint32_t *turned;   /* (CHANNELS, rows, row_words) */
    uint32_t *filters;  /* from their last rows to their first: (together, kernel_h, words, 2) */
    int32_t *sums;      /* (together, pitch) */
} job_t;

/* Words of a turned row: of as many outputs as the input has pixels, in fours, one apart. */
static uint32_t row_words_of(const mdy_conv_t *p)
{
    return ((uint32_t)p->in.w + MDY_DSP_PIXELS - 1) / MDY_DSP_PIXELS * (MDY_DSP_PIXELS / 2) + mdy_dsp_filter_words(p);
}

/* Rows of gradients that reach so many rows of the input, at most. */
static uint32_t rows_for(const mdy_conv_t *p, uint32_t rows)
{
    return (rows + p->kernel_h - 2u) / p->stride_h + 1u;
}

static uint32_t filter_words_of(const mdy_conv_t *p)
{
    return p->kernel_h * 2u * mdy_dsp_filter_words(p);
}

static uint32_t pitch_of(const mdy_conv_t *p)
{
    return (p->in.w + MDY_DSP_PIXELS - 1u) / MDY_DSP_PIXELS * MDY_DSP_PIXELS;
}

static uint32_t room_for(const mdy_conv_t *p, uint32_t rows, uint32_t together)
{
    const uint32_t turned = CHANNELS * rows_for(p, rows) * row_words_of(p);
    return (turned + together * (filter_words_of(p) + pitch_of(p))) * (uint32_t)sizeof(uint32_t);
}

/* Writes a word of each of four channels from two pixels' gradients; NULL: zeros. */
static inline void turn(const job_t *job, const mdy_grad_t *left, const mdy_grad_t *right, uint32_t channel,
                        uint32_t *to)
{
    const uint32_t pitch = job->rows * job->row_words;
    int32_t one[CHANNELS] = {0, 0, 0, 0};
    int32_t two[CHANNELS] = {0, 0, 0, 0};
    if (left != NULL) {
        mdy_dsp_scale4(job->p, left, channel, one);
    }
    if (right != NULL) {
        mdy_dsp_scale4(job->p, right, channel, two);
    }
    to[0] = mdy_lows((uint32_t)one[0], (uint32_t)two[0]);
    to[pitch] = mdy_lows((uint32_t)one[1], (uint32_t)two[1]);
    to[2 * pitch] = mdy_lows((uint32_t)one[2], (uint32_t)two[2]);
    to[3 * pitch] = mdy_lows((uint32_t)one[3], (uint32_t)two[3]);
}

/* The same for pairs of pixels side by side; returns behind the last word. */
static __attribute__((noinline)) uint32_t *turn_pairs(const job_t *job, const mdy_grad_t *pixels, uint32_t channel,
                                                      uint32_t *to, uint32_t pairs)
{
    const uint32_t step = job->p->out.c;
    for (uint32_t *end = to + pairs; to != end; to++, pixels += 2 * step) {
        turn(job, pixels, pixels + step, channel, to);
    }
    return to;
}

/* Turns four channels of a row of gradients: the first one of them is what the last tap brings to pixel 0. */
static void turn_row(const job_t *job, int32_t oy, uint32_t channel, uint32_t *to)
{
    const mdy_conv_t *p = job->p;
    const mdy_grad_t *row = mdy_grad_row(job->dy, oy);
    const int32_t stride = p->stride_w;
    const int32_t end = p->out.w;
    const int32_t first = p->kernel_w - 1 -
                          p->pad_left; /* place of the first output; that of the others: a stride on */
    /* Without a stride: the words that have two pixels. */
    const uint32_t begin = (uint32_t)(first + 1) / 2;
    const uint32_t behind = (uint32_t)(end + first) / 2;
    const uint32_t inside = behind < job->row_words ? behind : job->row_words;
    const uint32_t pairs = stride == 1 && first >= 0 && inside > begin ? inside - begin : 0;
    for (uint32_t word = 0; word < job->row_words; word++, to++) {
        if (word == begin && pairs > 0) {
            to = turn_pairs(job, row + (2 * (int32_t)begin - first) * p->out.c, channel, to, pairs);
            word += pairs;
            if (word >= job->row_words) {
                break;
            }
        }
        const int32_t left = (int32_t)(2 * word) - first;
        const int32_t right = left + 1;
        const int has_left = left >= 0 && (stride == 1 || left % stride == 0) && left / stride < end;
        const int has_right = right >= 0 && (stride == 1 || right % stride == 0) && right / stride < end;
        turn(job, has_left ? row + left / stride * p->out.c : NULL, has_right ? row + right / stride * p->out.c : NULL,
             channel, to);
    }
}

/* Packs a channel's filter from its last row and tap to its first, with the delta if there is one: words of two taps, each
 * beside the one moved by a tap. */
static void pack_filter(const job_t *job, const int8_t *w, const int8_t *delta, uint32_t *packed)
{
    const uint32_t channels = job->p->in.c;
    const uint32_t kernel_w = job->p->kernel_w;
    uint32_t left = job->p->kernel_h * kernel_w; /* taps that are not packed yet */
    for (uint32_t ky = 0; ky < job->p->kernel_h; ky++) {
        uint32_t before = 0;
        for (uint32_t kx = 0; kx < 2 * job->words; kx += 2, packed += 2) {
            int32_t one = 0;
            int32_t two = 0;
            if (kx < kernel_w) {
                left--;
                one = w[left * channels] + (delta == NULL ? 0 : delta[left]);
            }
            if (kx + 1 < kernel_w) {
                left--;
                two = w[left * channels] + (delta == NULL ? 0 : delta[left]);
            }
            packed[0] = mdy_lows((uint32_t)one, (uint32_t)two);
            packed[1] = mdy_lows(before, (uint32_t)one);
            before = (uint32_t)two;
        }
    }
}

/*
 * The first channel's rows that reach a row of the input, of which there are `count`, and where the rows of its filter are
 * that belong to them.
 */
typedef struct {
    const uint32_t *x[TAPS_MAX];
    uint32_t filter; /* words from the filter's first row to theirs */
    uint32_t step;   /* from row to row */
    uint32_t count;
} reach_t;

#ifdef MDY_DSP
/* What makes sums of a row with a 3 x 3 window, at the offsets that are named. */
typedef struct {
    const uint32_t *x[3]; /*  0: the turned rows that reach it */
    uint32_t filter[6];   /* 12: of each row of the filter the first two taps and the last two */
    int32_t *sums;        /* 36: the next ones */
    uint32_t end;         /* 40: bytes of a turned row that are used up at the end */
} three_t;
_Static_assert(offsetof(three_t, filter) == 12, "read by instructions");
_Static_assert(offsetof(three_t, sums) == 36, "read by instructions");
_Static_assert(offsetof(three_t, end) == 40, "read by instructions");

/* clang-format off: instructions, one in a line */
/* Fours of sums of as many rows of the window as the name says. */
#define MAKE_SUMS(rows)                                                                                                \
    __asm__ volatile("mov    lr, #0\n"                                                                                 \
                     "1:\n" rows "ldr    r6, [%[at], #36]\n"                                                           \
                     "stmia  r6!, {r2-r5}\n"                                                                           \
                     "str    r6, [%[at], #36]\n"                                                                       \
                     "ldr    r12, [%[at], #40]\n"                                                                      \
                     "add    lr, lr, #8\n"                                                                             \
                     "cmp    lr, r12\n"                                                                                \
                     "bne    1b\n"                                                                                     \
                     : [at] "+r"(at)                                                                                   \
                     :                                                                                                 \
                     : MDY_DSP_CLOBBERED)

static __attribute__((noinline)) void one_row(three_t *three)
{
    register three_t *at __asm__("r0") = three;
    MAKE_SUMS(MDY_DSP_THREE("0", "12", MDY_DSP_FIRST));
}

static __attribute__((noinline)) void two_rows(three_t *three)
{
    register three_t *at __asm__("r0") = three;
    MAKE_SUMS(MDY_DSP_THREE("0", "12", MDY_DSP_FIRST) MDY_DSP_THREE("4", "20", MDY_DSP_NEXT));
}

static __attribute__((noinline)) void three_rows(three_t *three)
{
    register three_t *at __asm__("r0") = three;
    MAKE_SUMS(MDY_DSP_THREE("0", "12", MDY_DSP_FIRST) MDY_DSP_THREE("4", "20", MDY_DSP_NEXT)
                  MDY_DSP_THREE("8", "28", MDY_DSP_NEXT));
}
/* clang-format on */

/* Sums of one channel's row of the input by a 3 x 3 window. */
static void row_of_three(const job_t *job, const reach_t *reach, uint32_t turned, uint32_t filter, int32_t *sums)
{
    three_t three;
    const uint32_t *words = job->filters + filter + reach->filter;
    for (uint32_t i = 0; i < reach->count; i++, words += reach->step) {
        three.x[i] = reach->x[i] + turned;
        three.filter[2 * i] = words[0];
        three.filter[2 * i + 1] = words[3];
    }
    three.sums = sums;
    three.end = job->pitch * (uint32_t)sizeof(int16_t);
    if (reach->count == 3) {
        three_rows(&three);
    } else if (reach->count == 2) {
        two_rows(&three);
    } else {
        one_row(&three);
    }
}
#endif

/* Sums of one channel's row of the input; `turned`, `filter`: words from the first channel's to this one's. */
static void sum_row(const job_t *job, const reach_t *reach, uint32_t turned, uint32_t filter, int32_t *sums)
{
#ifdef MDY_DSP
    if (job->p->kernel_w == 3 && job->p->kernel_h == 3 && reach->count > 0) {
        row_of_three(job, reach, turned, filter, sums);
        return;
    }
#endif
    memset(sums, 0, job->pitch * sizeof *sums);
    const uint32_t *words = job->filters + filter + reach->filter;
    for (uint32_t i = 0; i < reach->count; i++, words += reach->step) {
        for (uint32_t ix = 0; ix < job->pitch; ix += MDY_DSP_PIXELS) {
            mdy_dsp_add_row(reach->x[i] + turned + ix / 2, words, job->words, sums + ix);
        }
    }
}

/* Which turned rows reach row iy of the input; `first` is the output row that was turned first. */
static reach_t reach_of(const job_t *job, int32_t iy, int32_t first)
{
    const mdy_conv_t *p = job->p;
    const uint32_t row_words = 2 * job->words;
    reach_t reach = {.count = 0, .step = p->stride_h * row_words};
    int32_t oy = (iy + p->pad_top) / p->stride_h; /* the last one, by the filter's first row or one of its next */
    int32_t ky = (iy + p->pad_top) % p->stride_h;
    for (; oy >= p->out.h; oy--) {
        ky += p->stride_h;
    }
    int32_t count = ky < p->kernel_h ? (p->kernel_h - 1 - ky) / p->stride_h + 1 : 0;
    count = count < oy + 1 ? count : oy + 1;
    /* From the filter's last row, which is packed first, to its first. */
    for (int32_t i = count - 1; i >= 0; i--) {
        reach.x[reach.count++] = job->turned + (uint32_t)(oy - i - first) * job->row_words;
    }
    reach.filter = count > 0 ? (uint32_t)(p->kernel_h - 1 - (ky + (count - 1) * p->stride_h)) * row_words : 0;
    return reach;
}

/* Some rows of the input, four channels after the other. */
static void some_rows(const job_t *job, const int8_t *w, const mdy_selected_t *sel, mdy_band_t rows, mdy_sink_t *sink)
{
    const mdy_conv_t *p = job->p;
    const int32_t lowest = rows.begin + p->pad_top - (p->kernel_h - 1);
    const int32_t first = lowest <= 0 ? 0 : (lowest + p->stride_h - 1) / p->stride_h;
    const int32_t highest = (rows.end - 1 + p->pad_top) / p->stride_h;
    const int32_t last = highest < p->out.h ? highest : p->out.h - 1;
    uint32_t slot = 0;
    for (uint32_t four = 0; four < p->in.c; four += CHANNELS) {
        for (int32_t oy = first; oy <= last; oy++) {
            turn_row(job, oy, four, job->turned + (uint32_t)(oy - first) * job->row_words);
        }
        for (uint32_t channel = four; channel < four + CHANNELS; channel += job->together) {
            const uint32_t filter_words = filter_words_of(p);
            for (uint32_t i = 0; i < job->together; i++) {
                const int8_t *delta = mdy_dsp_next_delta(sel, &slot, channel + i);
                pack_filter(job, w + channel + i, delta, job->filters + i * filter_words);
            }
            for (int32_t iy = rows.begin; iy < rows.end; iy++) {
                const reach_t reach = reach_of(job, iy, first);
                for (uint32_t i = 0; i < job->together; i++) {
                    const uint32_t turned = (channel + i - four) * job->rows * job->row_words;
                    sum_row(job, &reach, turned, i * filter_words, job->sums + i * job->pitch);
                }
                mdy_sink_channels(sink, iy, 0, p->in.w, channel, job->together, job->sums, job->pitch);
            }
        }
    }
}

void mdy_dsp_depthwise_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel,
                                      const mdy_view_t *dy, mdy_band_t rows, mdy_sink_t *sink,
                                      mdy_workspace_t workspace)
{
    uint32_t most = (uint32_t)rows.end - rows.begin;
    most = most < ROWS_MAX ? most : ROWS_MAX;
    /* Where a pixel's g_acc would be, which this kernel does not keep, there is often more room than elsewhere. */
    const uint32_t terms_bytes = p->out.c * (uint32_t)sizeof(int16_t);
    if (terms_bytes > workspace.bytes && room_for(p, most, CHANNELS) > workspace.bytes) {
        workspace.at = (uint8_t *)mdy_sink_terms(sink);
        workspace.bytes = terms_bytes;
    }
    while (most > 1 && room_for(p, most, CHANNELS) > workspace.bytes) {
        most--;
    }
    const uint32_t together = room_for(p, most, CHANNELS) > workspace.bytes ? 1 : CHANNELS;
    if (room_for(p, most, together) > workspace.bytes || most == 0 || p->in.c % CHANNELS != 0 || p->w_zero != 0 ||
        p->dilation_h != 1 || p->dilation_w != 1 || p->kernel_h > TAPS_MAX || p->kernel_w > TAPS_MAX) {
        mdy_depthwise_backward_input(p, w, sel, dy, rows, sink, workspace);
        return;
    }
    job_t job = {
        .p = p,
        .dy = dy,
        .row_words = row_words_of(p),
        .rows = rows_for(p, most),
        .words = mdy_dsp_filter_words(p),
        .together = together,
        .pitch = pitch_of(p),
        .turned = (uint32_t *)(void *)workspace.at,
    };
    job.filters = job.turned + CHANNELS * job.rows * job.row_words;
    job.sums = (int32_t *)(void *)(job.filters + together * filter_words_of(p));
    mdy_band_t some = rows;
    for (; some.begin < rows.end; some.begin = some.end) {
        some.end = (uint16_t)(rows.end - some.begin > (int32_t)most ? some.begin + most : rows.end);
        some_rows(&job, w, sel, some, sink);
    }
}
