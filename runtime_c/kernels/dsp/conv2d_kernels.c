/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense convolution for cores with the DSP extension (Armv7E-M, Armv8-M): SMLAD adds two products of halfwords.
 *
 * A convolution is a product of matrices, four pixels at a time. What their windows hold, less the input's zero point,
 * is widened to halfwords into a block, once for all outputs: of every four taps first the even ones of each pixel, then
 * the odd ones, as SXTB16 takes them from the weights. Padding is zeros. What this family has no room or no block for is
 * the portable kernel's.
 */
#include "mdy/ops/conv2d.h"

#include <string.h>

#include "mdy/dsp.h"

#define GROUP 4u       /* taps that are widened together */
#define GROUP_WORDS 8u /* of them in a block */

/* One call. */
typedef struct {
    const mdy_conv_t *p;
    const int8_t *w;
    const mdy_view_t *x;
    uint32_t *block; /* groups of GROUP_WORDS words */
    int8_t *window;  /* one pixel's taps, where they do not lie side by side */
    uint32_t taps;   /* of an output */
    uint32_t rare;   /* the first output that is requantised in a rare way; how many there are: none */
} job_t;

static uint32_t groups_of(uint32_t taps)
{
    return (taps + GROUP - 1) / GROUP;
}

/* Writes four taps of one pixel into its places of a group. */
static inline void widen(uint32_t *place, uint32_t minus_zero, uint32_t bytes)
{
    place[0] = mdy_add_even(minus_zero, bytes);
    place[MDY_DSP_PIXELS] = mdy_add_odd(minus_zero, bytes);
}

/* Writes taps that lie side by side into one pixel's places, in whole groups; returns the place of the next one. */
static uint32_t *widen_run(uint32_t *place, uint32_t minus_zero, const int8_t *taps, uint32_t count)
{
    const int8_t *fours = taps + count / (4 * GROUP) * (4 * GROUP);
    const int8_t *end = taps + count;
    for (; taps != fours; taps += 4 * GROUP, place += 4 * GROUP_WORDS) {
        widen(place, minus_zero, mdy_load4(taps));
        widen(place + GROUP_WORDS, minus_zero, mdy_load4(taps + GROUP));
        widen(place + 2 * GROUP_WORDS, minus_zero, mdy_load4(taps + 2 * GROUP));
        widen(place + 3 * GROUP_WORDS, minus_zero, mdy_load4(taps + 3 * GROUP));
    }
    for (; taps != end; taps += GROUP, place += GROUP_WORDS) {
        widen(place, minus_zero, mdy_load4(taps));
    }
    return place;
}

/* Writes the taps of one pixel into its places of the block; what is missing to whole groups becomes zeros. */
static void place_taps(const job_t *job, const int8_t *taps, uint32_t pixel)
{
    const uint32_t rest = job->taps % GROUP;
    const uint32_t whole = job->taps - rest;
    uint32_t *place = widen_run(job->block + pixel, mdy_dsp_minus_zero(job->p), taps, whole);
    if (rest > 0) {
        uint32_t bytes = ((uint32_t)job->p->x_zero & 0xFFu) * 0x1010101u;
        memcpy(&bytes, taps + whole, rest);
        widen(place, mdy_dsp_minus_zero(job->p), bytes);
    }
}

static void copy_bytes(int8_t *to, const int8_t *from, uint32_t count)
{
    for (; count >= 4; count -= 4, to += 4, from += 4) {
        memcpy(to, from, 4);
    }
    while (count-- > 0) {
        *to++ = *from++;
    }
}

/* The taps of the output pixel (oy, ox), side by side: where they are, or gathered with padding between them. */
static const int8_t *window_of(const job_t *job, int32_t oy, int32_t ox)
{
    const mdy_conv_t *p = job->p;
    const int32_t channels = p->in.c;
    const int32_t iy0 = oy * p->stride_h - p->pad_top;
    const int32_t ix0 = ox * p->stride_w - p->pad_left;
    if (mdy_dsp_is_pixel(p)) {
        return mdy_row(job->x, iy0) + ix0 * channels;
    }
    int32_t kx0;
    int32_t kx1;
    mdy_taps(ix0, 1, p->kernel_w, p->in.w, &kx0, &kx1);
    const uint32_t row_bytes = (uint32_t)(p->kernel_w * channels);
    const uint32_t inside = (uint32_t)((kx1 - kx0) * channels);
    int8_t *to = job->window;
    for (int32_t iy = iy0; iy < iy0 + p->kernel_h; iy++, to += row_bytes) {
        const int holds = iy >= 0 && iy < p->in.h;
        if (!holds || inside < row_bytes) {
            memset(to, p->x_zero, row_bytes);
        }
        if (holds) {
            copy_bytes(to + kx0 * channels, mdy_row(job->x, iy) + (ix0 + kx0) * channels, inside);
        }
    }
    return job->window;
}

/* Puts the window of an output pixel into the block: row by row, if its rows are whole groups inside of the input. */
static void place_pixel(const job_t *job, int32_t oy, int32_t ox, uint32_t pixel)
{
    const mdy_conv_t *p = job->p;
    const uint32_t row = (uint32_t)p->kernel_w * p->in.c;
    const int32_t ix0 = ox * p->stride_w - p->pad_left;
    if (row % GROUP != 0 || ix0 < 0 || ix0 + p->kernel_w > p->in.w) {
        place_taps(job, window_of(job, oy, ox), pixel);
        return;
    }
    uint32_t *place = job->block + pixel;
    const int32_t iy0 = oy * p->stride_h - p->pad_top;
    for (int32_t iy = iy0; iy < iy0 + p->kernel_h; iy++) {
        if (iy >= 0 && iy < p->in.h) {
            place = widen_run(place, mdy_dsp_minus_zero(job->p), mdy_row(job->x, iy) + ix0 * p->in.c, row);
            continue;
        }
        for (uint32_t word = 0; word < row / 2; word++, place += MDY_DSP_PIXELS) {
            *place = 0;
        }
    }
}

/* The same of some pixels side by side, each of which is a window. */
static void place_line(const job_t *job, int32_t oy, int32_t ox, uint32_t count)
{
    const uint32_t channels = job->p->in.c;
    const int8_t *taps = mdy_row(job->x, oy * job->p->stride_h) + (uint32_t)ox * channels;
    for (uint32_t pixel = 0; pixel < count; pixel++, taps += channels) {
        place_taps(job, taps, pixel);
    }
}

#ifdef MDY_DSP
/* clang-format off: instructions, one in a line */
/* Adds a group's products to the sums of four pixels, r3 to r6; r1 goes over the block, r2 over the weights. */
#define MULTIPLY_GROUP                                                                                                 \
    "ldr    r12, [r2], #4\n"                                                                                           \
    "ldmia  r1!, {r8-r11}\n"                                                                                           \
    "sxtb16 lr, r12\n"                                                                                                 \
    "smlad  r3, r8, lr, r3\n"                                                                                          \
    "smlad  r4, r9, lr, r4\n"                                                                                          \
    "smlad  r5, r10, lr, r5\n"                                                                                         \
    "smlad  r6, r11, lr, r6\n"                                                                                         \
    "ldmia  r1!, {r8-r11}\n"                                                                                           \
    "sxtb16 r12, r12, ror #8\n"                                                                                        \
    "smlad  r3, r8, r12, r3\n"                                                                                         \
    "smlad  r4, r9, r12, r4\n"                                                                                         \
    "smlad  r5, r10, r12, r5\n"                                                                                        \
    "smlad  r6, r11, r12, r6\n"
/* clang-format on */

/* Adds the products of the block's groups with one output's weights to the sums of four pixels. */
static __attribute__((noinline)) void multiply(const uint32_t *block, const int8_t *weights, uint32_t groups,
                                               int32_t acc[MDY_DSP_PIXELS])
{
    register const uint32_t *x __asm__("r1") = block;
    register const int8_t *w __asm__("r2") = weights;
    register int32_t a __asm__("r3") = acc[0];
    register int32_t b __asm__("r4") = acc[1];
    register int32_t c __asm__("r5") = acc[2];
    register int32_t d __asm__("r6") = acc[3];
    for (const uint32_t *end = block + groups * GROUP_WORDS; x != end;) {
        __asm__(MULTIPLY_GROUP
                : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(x), "+r"(w)
                :
                : "r8", "r9", "r10", "r11", "r12", "lr", "memory");
    }
    acc[0] = a;
    acc[1] = b;
    acc[2] = c;
    acc[3] = d;
}
#else
/* Adds the products of the block's groups with one output's weights to the sums of four pixels. */
static void multiply(const uint32_t *x, const int8_t *w, uint32_t groups, int32_t acc[MDY_DSP_PIXELS])
{
    for (; groups > 0; groups--, w += GROUP, x += GROUP_WORDS) {
        const uint32_t even = mdy_even(mdy_load4(w));
        const uint32_t odd = mdy_odd(mdy_load4(w));
        for (uint32_t pixel = 0; pixel < MDY_DSP_PIXELS; pixel++) {
            acc[pixel] = mdy_smlad(x[pixel], even, acc[pixel]);
            acc[pixel] = mdy_smlad(x[MDY_DSP_PIXELS + pixel], odd, acc[pixel]);
        }
    }
}
#endif

/* Output o of the block's pixels. start: their sums so far, or NULL: the bias. */
static void block_output(const job_t *job, uint32_t o, uint32_t count, int8_t *y, const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const uint32_t outputs = p->out.c;
    const uint32_t whole = job->taps / GROUP;
    const uint32_t rest = job->taps % GROUP;
    const int8_t *w = job->w + o * job->taps;
    if (p->mult[o] == 0) {
        for (uint32_t pixel = 0; pixel < count; pixel++) {
            y[pixel * outputs + o] = p->shift[o];
        }
        return;
    }
    int32_t acc[MDY_DSP_PIXELS];
    for (uint32_t pixel = 0; pixel < MDY_DSP_PIXELS; pixel++) {
        acc[pixel] = start == NULL ? p->bias[o] : pixel < count ? start[pixel * outputs + o] : 0;
    }
    multiply(job->block, w, whole, acc);
    if (rest > 0) {
        int8_t last[GROUP] = {0, 0, 0, 0};
        memcpy(last, w + whole * GROUP, rest);
        multiply(job->block + whole * GROUP_WORDS, last, 1, acc);
    }
    mdy_dsp_store(p, o, acc, y + o, outputs, count);
}

/* The first output from `o` on that is requantised in a rare way. */
static uint32_t next_rare(const mdy_conv_t *p, uint32_t o)
{
    while (o < p->out.c && mdy_dsp_is_common(p, o)) {
        o++;
    }
    return o;
}

#ifdef MDY_DSP
/* What the loop over outputs reads and moves on, at the offsets that it names. */
typedef struct {
    const uint32_t *x;       /*  0: the block */
    const uint32_t *x_fours; /*  4: the end of its groups that come in fours */
    const uint32_t *x_end;   /*  8: the end */
    const int32_t *mult;     /* 12: of the next output */
    const int8_t *shift;     /* 16 */
    const int32_t *start;    /* 20: the first pixel's sum so far */
    uint32_t start_pitch;    /* 24: bytes from pixel to pixel: none if all of them begin with the bias */
    int8_t *y;               /* 28: where it goes, of the first pixel */
    uint32_t pitch;          /* 32: from pixel to pixel */
    int32_t zero;            /* 36: twice the zero point, and one */
    const int8_t *y_end;     /* 40: behind the last output of the first pixel */
    const int8_t *w;         /* 44: its weights */
    uint32_t spare;          /* 48: of the last group's weights, those of the output behind it */
    uint32_t kept;           /* 52: a register that may be the frame pointer */
} loop_t;
_Static_assert(offsetof(loop_t, x_fours) == 4, "read by instructions");
_Static_assert(offsetof(loop_t, mult) == 12, "read by instructions");
_Static_assert(offsetof(loop_t, start) == 20, "read by instructions");
_Static_assert(offsetof(loop_t, y) == 28, "read by instructions");
_Static_assert(offsetof(loop_t, zero) == 36, "read by instructions");
_Static_assert(offsetof(loop_t, y_end) == 40, "read by instructions");
_Static_assert(offsetof(loop_t, w) == 44, "read by instructions");
_Static_assert(offsetof(loop_t, spare) == 48, "read by instructions");
_Static_assert(offsetof(loop_t, kept) == 52, "read by instructions");

/* clang-format off: instructions, one in a line */
/* Outputs of four pixels one after the other, to the end; shifts are -22 to -1. */
static __attribute__((noinline)) void multiply_outputs(loop_t *loop)
{
    register loop_t *at __asm__("r0") = loop;
    __asm__ volatile("str    r7, [%[at], #52]\n"
                     "ldr    r7, [%[at], #4]\n"
                     "1:\n" /* an output: r3 to r6 become its sums, r1 goes over the block, r2 over the weights */
                     "ldrd   r12, r8, [%[at], #20]\n"
                     "ldr    r4, [r12, r8]\n"
                     "ldr    r5, [r12, r8, lsl #1]\n"
                     "add    r8, r8, r8, lsl #1\n"
                     "ldr    r6, [r12, r8]\n"
                     "ldr    r3, [r12], #4\n"
                     "str    r12, [%[at], #20]\n"
                     "ldr    r2, [%[at], #44]\n"
                     "ldr    r1, [%[at]]\n"
                     "cmp    r1, r7\n"
                     "beq    3f\n"
                     "2:\n" MULTIPLY_GROUP MULTIPLY_GROUP MULTIPLY_GROUP MULTIPLY_GROUP "cmp    r1, r7\n"
                     "bne    2b\n"
                     "3:\n"
                     "ldr    r12, [%[at], #8]\n"
                     "cmp    r1, r12\n"
                     "beq    5f\n"
                     "4:\n" MULTIPLY_GROUP "ldr    r12, [%[at], #8]\n"
                     "cmp    r1, r12\n"
                     "bne    4b\n"
                     "5:\n" /* requantise them and go on */
                     "ldr    r12, [%[at], #48]\n"
                     "sub    r2, r2, r12\n"
                     "str    r2, [%[at], #44]\n"
                     "ldrd   r1, r2, [%[at], #12]\n"
                     "ldr    r8, [r1], #4\n"
                     "ldrsb  r9, [r2], #1\n"
                     "strd   r1, r2, [%[at], #12]\n"
                     "mvn    r9, r9\n"
                     "ldr    r10, [%[at], #36]\n"
                     "lsl    r10, r10, r9\n" /* half of the divisor, and the zero point */
                     "add    r9, r9, #1\n"
                     "lsl    r3, r3, #1\n"
                     "lsl    r4, r4, #1\n"
                     "lsl    r5, r5, #1\n"
                     "lsl    r6, r6, #1\n" MDY_DSP_REQUANTIZE("r3", "r8", "r10", "r9", "r12") MDY_DSP_REQUANTIZE(
                         "r4", "r8", "r10", "r9", "r12") MDY_DSP_REQUANTIZE("r5", "r8", "r10", "r9", "r12")
                         MDY_DSP_REQUANTIZE("r6", "r8", "r10", "r9", "r12") "ldrd   r1, r2, [%[at], #28]\n"
                                                                            "strb   r4, [r1, r2]\n"
                                                                            "add    r12, r1, r2, lsl #1\n"
                                                                            "strb   r5, [r12]\n"
                                                                            "strb   r6, [r12, r2]\n"
                                                                            "strb   r3, [r1], #1\n"
                                                                            "str    r1, [%[at], #28]\n"
                                                                            "ldr    r12, [%[at], #40]\n"
                                                                            "cmp    r1, r12\n"
                                                                            "bne    1b\n"
                                                                            "ldr    r7, [%[at], #52]\n"
                     : [at] "+r"(at)
                     :
                     : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
}
/* clang-format on */

static void limit(const mdy_conv_t *p, int8_t *y, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        y[i] = mdy_clamp8(y[i], p->act_min, p->act_max);
    }
}

/* All outputs of four pixels. */
static void whole_block(const job_t *job, int8_t *y, const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const uint32_t outputs = p->out.c;
    const uint32_t groups = groups_of(job->taps);
    const uint32_t spare = groups * GROUP - job->taps;
    const uint32_t last = outputs - (spare > 0); /* whose weights end where the layer's do: it is made apart */
    uint32_t rare = job->rare;
    for (uint32_t o = 0; o < outputs; o = rare + 1, rare = next_rare(p, o)) {
        const uint32_t end = rare < last ? rare : last;
        if (o < end) {
            loop_t loop = {
                .x = job->block,
                .x_fours = job->block + groups / 4 * 4 * GROUP_WORDS,
                .x_end = job->block + groups * GROUP_WORDS,
                .mult = p->mult + o,
                .shift = p->shift + o,
                .start = (start == NULL ? p->bias : start) + o,
                .start_pitch = start == NULL ? 0 : outputs * (uint32_t)sizeof *start,
                .y = y + o,
                .pitch = outputs,
                .zero = 2 * p->y_zero + 1,
                .y_end = y + end,
                .w = job->w + o * job->taps,
                .spare = spare,
            };
            multiply_outputs(&loop);
        }
        for (o = end; o <= rare && o < outputs; o++) {
            block_output(job, o, MDY_DSP_PIXELS, y, start);
        }
    }
    if (mdy_dsp_is_limited(p)) {
        limit(p, y, MDY_DSP_PIXELS * outputs);
    }
}

/* Adds four outputs' products of one pixel's taps, in whole groups, to their sums. */
static __attribute__((noinline)) void multiply_pixel(const job_t *job, const int8_t *x, const int8_t *w, int32_t acc[4])
{
    const uint32_t minus_zero = mdy_dsp_minus_zero(job->p);
    const uint32_t taps = job->taps;
    int32_t a = acc[0];
    int32_t b = acc[1];
    int32_t c = acc[2];
    int32_t d = acc[3];
    for (const int8_t *end = x + taps; x != end;) {
        __asm__("ldr     r8, [%[x]], #4\n"
                "add     r10, %[w], %[taps], lsl #1\n"
                "sxtab16 r9, %[zero], r8, ror #8\n"
                "sxtab16 r8, %[zero], r8\n"
                "ldr     r10, [r10, %[taps]]\n"
                "sxtb16  r11, r10\n"
                "smlad   %[d], r8, r11, %[d]\n"
                "sxtb16  r10, r10, ror #8\n"
                "smlad   %[d], r9, r10, %[d]\n"
                "ldr     r10, [%[w], %[taps], lsl #1]\n"
                "sxtb16  r11, r10\n"
                "smlad   %[c], r8, r11, %[c]\n"
                "sxtb16  r10, r10, ror #8\n"
                "smlad   %[c], r9, r10, %[c]\n"
                "ldr     r10, [%[w], %[taps]]\n"
                "sxtb16  r11, r10\n"
                "smlad   %[b], r8, r11, %[b]\n"
                "sxtb16  r10, r10, ror #8\n"
                "smlad   %[b], r9, r10, %[b]\n"
                "ldr     r10, [%[w]], #4\n"
                "sxtb16  r11, r10\n"
                "smlad   %[a], r8, r11, %[a]\n"
                "sxtb16  r10, r10, ror #8\n"
                "smlad   %[a], r9, r10, %[a]\n"
                : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [x] "+&r"(x), [w] "+&r"(w)
                : [taps] "r"(taps), [zero] "r"(minus_zero)
                : "r8", "r9", "r10", "r11", "memory");
    }
    acc[0] = a;
    acc[1] = b;
    acc[2] = c;
    acc[3] = d;
}
#else
static void multiply_pixel(const job_t *job, const int8_t *x, const int8_t *w, int32_t acc[4])
{
    for (uint32_t tap = 0; tap < job->taps; tap++) {
        for (uint32_t o = 0; o < 4; o++) {
            acc[o] += (x[tap] - job->p->x_zero) * w[o * job->taps + tap];
        }
    }
}
#endif

/* All outputs of one pixel without a block, four at a time. start: their sums so far, or NULL: the biases. */
static void pixel_outputs(const job_t *job, const int8_t *taps, int8_t *y, const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const int32_t *bias = start != NULL ? start : p->bias;
    for (uint32_t o = 0; o < p->out.c; o += 4) {
        int32_t acc[4] = {bias[o], bias[o + 1], bias[o + 2], bias[o + 3]};
        multiply_pixel(job, taps, job->w + o * job->taps, acc);
        for (uint32_t i = 0; i < 4; i++) {
            y[o + i] = mdy_conv_output(p, o + i, acc[i]);
        }
    }
}

/* All outputs of the block's pixels. start: their sums so far, or NULL: the biases. */
static void block_outputs(const job_t *job, uint32_t count, int8_t *y, const int32_t *start)
{
#ifdef MDY_DSP
    if (count == MDY_DSP_PIXELS && job->p->narrow) {
        whole_block(job, y, start);
        return;
    }
#endif
    for (uint32_t o = 0; o < job->p->out.c; o++) {
        block_output(job, o, count, y, start);
    }
}

static int is_product(const mdy_conv_t *p)
{
    return p->group_in == p->in.c && p->w_zero == 0 && p->dilation_h == 1 && p->dilation_w == 1;
}

static void dsp_conv2d_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                               mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w * p->group_in;
    const uint32_t window_bytes = mdy_dsp_is_pixel(p) ? 0 : taps;
    const uint32_t block_bytes = groups_of(taps) * GROUP_WORDS * (uint32_t)sizeof(uint32_t);
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    const int has_block = workspace.bytes >= block_bytes + window_bytes;
    const int by_pixels = taps % GROUP == 0 && p->out.c % 4 == 0;
    if (!is_product(p) || workspace.bytes < window_bytes || (!has_block && !by_pixels) || width == 0) {
        mdy_conv2d_forward(p, w, x, y, tile, acc_init, workspace);
        return;
    }
    const job_t job = {
        .p = p,
        .w = w,
        .x = x,
        .block = (uint32_t *)(void *)workspace.at,
        .window = (int8_t *)workspace.at + (has_block ? block_bytes : 0u),
        .taps = taps,
        .rare = next_rare(p, 0),
    };
    const int is_line = mdy_dsp_is_pixel(p) && p->stride_w == 1;
    /* Rows of a whole tensor lie side by side: blocks may go on in the next one. */
    const uint32_t run = width == p->out.w && y->rows >= p->out.h ? width * (tile.rows.end - tile.rows.begin) : width;
    int32_t oy = tile.rows.begin;
    int32_t ox = tile.columns.begin;
    while (oy < tile.rows.end) {
        int8_t *out = mdy_row(y, oy) + ox * p->out.c;
        for (uint32_t left = run; left > 0;) {
            const int alone = by_pixels && (left < MDY_DSP_PIXELS - 1 || !has_block);
            const uint32_t count = alone ? 1 : left < MDY_DSP_PIXELS ? left : MDY_DSP_PIXELS;
            if (alone) {
                pixel_outputs(&job, window_of(&job, oy, ox), out, acc_init);
            }
            if (is_line && !alone && ox + (int32_t)count <= tile.columns.end) {
                place_line(&job, oy, ox, count);
                ox += (int32_t)count;
            } else {
                for (uint32_t pixel = 0; pixel < count; pixel++) {
                    if (!alone) {
                        place_pixel(&job, oy, ox, pixel);
                    }
                    if (++ox == tile.columns.end && pixel + 1 < count) {
                        ox = tile.columns.begin;
                        oy++;
                    }
                }
            }
            if (ox == tile.columns.end) {
                ox = tile.columns.begin;
                oy++;
            }
            if (!alone) {
                block_outputs(&job, count, out, acc_init);
            }
            acc_init += acc_init != NULL ? count * p->out.c : 0u;
            out += count * p->out.c;
            left -= count;
        }
    }
}

const mdy_weighted_op_t mdy_conv2d = {
    .forward = dsp_conv2d_forward,
    .correct = mdy_dsp_conv2d_correct,
    .backward_input = mdy_dsp_conv2d_backward_input,
    .backward_weight = mdy_dsp_conv2d_backward_weight,
    .weight_offset = mdy_conv2d_weight_offset,
};
