/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense convolution backwards for cores with the DSP extension: the gradient of the input, that of the weights, and what
 * deltas add to the forward pass. Each is a product of matrices whose pairs of halfwords SMLAD takes: pairs of outputs for
 * the first, of pixels for the second, of selected channels for the third.
 */
#include <string.h>

#include "mdy/dsp.h"

#define PAIR_WORDS MDY_DSP_PIXELS /* of a pair of outputs in a block: one for each of its pixels */
#define TOGETHER 8u               /* channels whose sums are stored together */
#define END 0x80008000u           /* behind a block: no g_acc is -2^15 */

/* A dense filter that is read as it is: the offset of an output's weights of a tap is o * pitch + tap * channels. */
static int is_product(const mdy_conv_t *p)
{
    return p->group_in == p->in.c && p->w_zero == 0;
}

/* Adds to four channels at a time what one output pixel brings through a tap. */
static void spread_tap(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const int16_t *g_acc,
                       uint32_t tap, int32_t *acc)
{
    const uint32_t channels = p->in.c;
    const uint32_t outputs = p->out.c;
    const uint32_t pitch = (uint32_t)p->kernel_h * p->kernel_w * channels;
    const uint32_t even = outputs & ~1u;
    uint32_t c = 0;
    w += tap * channels;
    for (; c + 4 <= channels; c += 4) {
        int32_t sums[4] = {acc[c], acc[c + 1], acc[c + 2], acc[c + 3]};
        const int8_t *row = w + c;
        for (uint32_t o = 0; o < even; o += 2, row += 2 * pitch) {
            uint32_t pair;
            memcpy(&pair, g_acc + o, sizeof pair);
            if (pair != 0) { /* about half of all gradients are 0: masked, or too small for the exponent */
                const uint32_t one = mdy_load4(row);
                const uint32_t other = mdy_load4(row + pitch);
                const uint32_t front = mdy_lows(one, other);
                const uint32_t back = mdy_highs(one, other);
                sums[0] = mdy_smlad(pair, mdy_even(front), sums[0]);
                sums[1] = mdy_smlad(pair, mdy_odd(front), sums[1]);
                sums[2] = mdy_smlad(pair, mdy_even(back), sums[2]);
                sums[3] = mdy_smlad(pair, mdy_odd(back), sums[3]);
            }
        }
        for (uint32_t i = 0; i < 4; i++) {
            acc[c + i] = sums[i] + (even < outputs ? g_acc[even] * row[i] : 0);
        }
    }
    for (; c < channels; c++) {
        for (uint32_t o = 0; o < outputs; o++) {
            acc[c] += g_acc[o] * w[o * pitch + c];
        }
    }
    for (uint32_t slot = 0; slot < sel->count; slot++) {
        uint8_t *record = mdy_record(sel, slot);
        const int8_t *delta = mdy_record_delta(record) + tap * outputs;
        int32_t sum = 0;
        for (uint32_t o = 0; o < outputs; o++) {
            sum += g_acc[o] * delta[o];
        }
        acc[mdy_record_channel(record)] += sum;
    }
}

/* Four pixels of a row, whose gradients reach a layer of single pixels. */
typedef struct {
    const mdy_conv_t *p;
    const int8_t *w;
    uint32_t *pairs; /* (outputs / 2, pixels): g_acc of two outputs; then what `end_t` says, and those of odd outputs */
    int32_t *sums;   /* (TOGETHER, pixels) */
} block_t;

/* What stands behind the pairs. */
typedef struct {
    uint32_t end;  /* END */
    uint32_t kept; /* a register that may be the frame pointer */
    int32_t *sums; /* of two channels, where they go */
} end_t;
#define END_WORDS 4u /* that it takes at most: a pointer has one or two */

static uint32_t pair_words(uint32_t outputs)
{
    return outputs / 4 * 2 * PAIR_WORDS;
}

static uint32_t *rest_of(const block_t *block)
{
    return block->pairs + pair_words(block->p->out.c) + END_WORDS;
}

/* Bytes of a block: the outputs that four do not divide come last, each with a word for every pixel. */
static uint32_t block_bytes(uint32_t outputs)
{
    const uint32_t words = pair_words(outputs) + outputs % 4 * MDY_DSP_PIXELS + TOGETHER * MDY_DSP_PIXELS + END_WORDS;
    return words * (uint32_t)sizeof(uint32_t);
}

/* Writes what reaches one pixel into its places of a block; dy == NULL: nothing does. */
static void place_gradients(const block_t *block, const mdy_grad_t *dy, uint32_t pixel)
{
    const mdy_conv_t *p = block->p;
    const uint32_t outputs = p->out.c;
    uint32_t *place = block->pairs + pixel;
    uint32_t o = 0;
    for (; o + 4 <= outputs; o += 4, place += 2 * PAIR_WORDS) {
        if (dy == NULL) {
            place[0] = 0;
            place[PAIR_WORDS] = 0;
            continue;
        }
        int32_t g_acc[4];
        mdy_dsp_scale4(p, dy, o, g_acc);
        place[0] = mdy_lows((uint32_t)g_acc[0], (uint32_t)g_acc[1]);
        place[PAIR_WORDS] = mdy_lows((uint32_t)g_acc[2], (uint32_t)g_acc[3]);
    }
    uint32_t *rest = rest_of(block) + pixel;
    for (; o < outputs; o++, rest += MDY_DSP_PIXELS) {
        *rest = dy == NULL ? 0 : (uint32_t)mdy_grad_acc(p, dy[o], o);
    }
}

#ifdef MDY_DSP
/* clang-format off: instructions, one in a line */
/* Takes the weights of two channels and two outputs: r12 has those of the second channel, lr those of the first. */
#define TAKE_WEIGHTS                                                                                                   \
    "ldrh   lr, [r2]\n"                                                                                                \
    "ldrh   r12, [r2, r0]\n"                                                                                           \
    "add    r2, r2, r0, lsl #1\n"                                                                                      \
    "orr    lr, lr, r12, lsl #16\n"                                                                                    \
    "sxtb16 r12, lr, ror #8\n"                                                                                         \
    "sxtb16 lr, lr\n"

/* Adds the products of one pixel's pair in r11. */
#define MULTIPLY_PAIR(first, second)                                                                                   \
    "smlad  " first ", r11, lr, " first "\n"                                                                           \
    "smlad  " second ", r11, r12, " second "\n"

#define MULTIPLY_OTHERS                                                                                                \
    "ldr    r11, [r1], #4\n" MULTIPLY_PAIR("r4", "r8") "ldr    r11, [r1], #4\n" MULTIPLY_PAIR(                         \
        "r5", "r9") "ldr    r11, [r1], #4\n" MULTIPLY_PAIR("r6", "r10")

_Static_assert(offsetof(end_t, kept) == 4 && offsetof(end_t, sums) == 8, "read by instructions");

/* Sums of two channels of the block's pixels over pairs of outputs; w: the channels' weights of the first output. */
static __attribute__((noinline)) void multiply(const block_t *block, const int8_t *weights, end_t *behind)
{
    register uint32_t pitch __asm__("r0") = block->p->in.c;
    register const uint32_t *x __asm__("r1") = block->pairs;
    register const int8_t *w __asm__("r2") = weights;
    register end_t *end __asm__("r11") = behind;
    __asm__ volatile("str    r7, [r11, #4]\n"
                     "movs   r3, #0\n"
                     "movs   r4, #0\n"
                     "movs   r5, #0\n"
                     "movs   r6, #0\n"
                     "movs   r7, #0\n"
                     "mov    r8, r7\n"
                     "mov    r9, r7\n"
                     "mov    r10, r7\n"
                     "b      2f\n"
                     "1:\n" TAKE_WEIGHTS MULTIPLY_PAIR("r3", "r7") MULTIPLY_OTHERS
                     "ldr    r11, [r1], #4\n" TAKE_WEIGHTS MULTIPLY_PAIR("r3", "r7") MULTIPLY_OTHERS
                     "2:\n"
                     "ldr    r11, [r1], #4\n"
                     "cmp    r11, #0x80008000\n"
                     "bne    1b\n"
                     "ldr    r11, [r1, #4]\n"
                     "stmia  r11, {r3-r10}\n"
                     "ldr    r7, [r1]\n"
                     : "+r"(x), "+r"(w), "+r"(end)
                     : "r"(pitch)
                     : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r12", "lr", "cc", "memory");
}
/* clang-format on */
#else
/* Sums of two channels of the block's pixels over pairs of outputs; w: the channels' weights of the first output. */
static void multiply(const block_t *block, const int8_t *w, end_t *behind)
{
    const uint32_t pitch = block->p->in.c;
    memset(behind->sums, 0, 2 * MDY_DSP_PIXELS * sizeof *behind->sums);
    for (const uint32_t *x = block->pairs; *x != END; x += PAIR_WORDS, w += 2 * pitch) {
        for (uint32_t channel = 0; channel < 2; channel++) {
            const uint32_t weights = mdy_lows((uint32_t)w[channel], (uint32_t)w[pitch + channel]);
            for (uint32_t pixel = 0; pixel < MDY_DSP_PIXELS; pixel++) {
                int32_t *sum = behind->sums + channel * MDY_DSP_PIXELS + pixel;
                *sum = mdy_smlad(x[pixel], weights, *sum);
            }
        }
    }
}
#endif

/* Adds the products with outputs from `o` on, `pitch` weights apart, that the main loop leaves: at most three. */
static void add_rest(const block_t *block, const int8_t *w, uint32_t pitch, int32_t *sums)
{
    const uint32_t *rest = rest_of(block);
    for (uint32_t o = block->p->out.c / 4 * 4; o < block->p->out.c; o++) {
        for (uint32_t pixel = 0; pixel < MDY_DSP_PIXELS; pixel++) {
            sums[pixel] += (int32_t)*rest++ * w[o * pitch];
        }
    }
}

/* Adds what a selected channel's delta brings. */
static void add_delta(const block_t *block, const int8_t *delta, int32_t *sums)
{
    const uint32_t *x = block->pairs;
    int32_t own[MDY_DSP_PIXELS] = {sums[0], sums[1], sums[2], sums[3]}; /* kept in registers */
    for (uint32_t o = 0; o + 4 <= block->p->out.c; o += 4, x += 2 * PAIR_WORDS) {
        const uint32_t four = mdy_load4(delta + o);
        const uint32_t first = mdy_lows(mdy_even(four), mdy_odd(four));
        const uint32_t second = mdy_highs(mdy_even(four), mdy_odd(four));
        for (uint32_t pixel = 0; pixel < MDY_DSP_PIXELS; pixel++) {
            own[pixel] = mdy_smlad(x[pixel], first, own[pixel]);
            own[pixel] = mdy_smlad(x[PAIR_WORDS + pixel], second, own[pixel]);
        }
    }
    memcpy(sums, own, sizeof own);
    add_rest(block, delta, 1, sums);
}

/* The input's gradient of a block's pixels, of which `count` are some. */
static void block_channels(const block_t *block, const mdy_selected_t *sel, mdy_sink_t *sink, uint16_t y, uint32_t x,
                           uint32_t count)
{
    const uint32_t channels = block->p->in.c;
    end_t *end = (end_t *)(void *)(block->pairs + pair_words(block->p->out.c));
    uint32_t slot = 0;
    end->end = END;
    for (uint32_t first = 0; first < channels; first += TOGETHER) {
        const uint32_t some = channels - first < TOGETHER ? channels - first : TOGETHER;
        end->sums = block->sums;
        for (uint32_t c = first; c < first + some; c += 2, end->sums += 2 * MDY_DSP_PIXELS) {
            multiply(block, block->w + c, end);
            for (uint32_t i = 0; i < 2; i++) {
                int32_t *sums = end->sums + i * MDY_DSP_PIXELS;
                const int8_t *delta = mdy_dsp_next_delta(sel, &slot, c + i);
                add_rest(block, block->w + c + i, channels, sums);
                if (delta != NULL) {
                    add_delta(block, delta, sums);
                }
            }
        }
        mdy_sink_channels(sink, y, x, count, first, some, block->sums, MDY_DSP_PIXELS);
    }
}

/* The input's gradient of one pixel of such a layer. */
static void one_pixel(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const mdy_grad_t *dy,
                      mdy_sink_t *sink, uint16_t y, uint32_t x)
{
    int32_t *acc = mdy_sink_begin(sink);
    int16_t *g_acc = mdy_sink_terms(sink);
    for (uint32_t o = 0; o < p->out.c; o++) {
        g_acc[o] = mdy_grad_acc(p, dy[o], o);
    }
    spread_tap(p, w, sel, g_acc, 0, acc);
    mdy_sink_end(sink, y, (int32_t)x);
}

void mdy_dsp_conv2d_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel,
                                   const mdy_view_t *dy, mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace)
{
    if (!is_product(p)) {
        mdy_conv2d_backward_input(p, w, sel, dy, rows, sink, workspace);
        return;
    }
    if (!mdy_dsp_is_pixelwise(p) || p->in.c % 2 != 0 || workspace.bytes < block_bytes(p->out.c)) {
        const mdy_spread_t spread = {spread_tap, w, sel};
        mdy_conv_spread(p, &spread, dy, rows, sink);
        return;
    }
    const uint32_t sums_bytes = TOGETHER * MDY_DSP_PIXELS * (uint32_t)sizeof(int32_t);
    const block_t block = {p, w, (uint32_t *)(void *)(workspace.at + sums_bytes), (int32_t *)(void *)workspace.at};
    for (uint16_t y = rows.begin; y < rows.end; y++) {
        const mdy_grad_t *gradients = mdy_grad_row(dy, y);
        for (uint32_t x = 0; x < p->in.w;) {
            const uint32_t left = p->in.w - x;
            const uint32_t count = left < MDY_DSP_PIXELS ? left : MDY_DSP_PIXELS;
            if (count < MDY_DSP_PIXELS - 1) {
                one_pixel(p, w, sel, gradients + x * p->out.c, sink, y, x);
                x++;
                continue;
            }
            for (uint32_t pixel = 0; pixel < MDY_DSP_PIXELS; pixel++) {
                place_gradients(&block, pixel < count ? gradients + (x + pixel) * p->out.c : NULL, pixel);
            }
            block_channels(&block, sel, sink, y, x, count);
            x += count;
        }
    }
}

/* Adds to four outputs of a pixel what two channels' deltas bring: weights are pairs of deltas. */
static inline void add_four(int32_t *acc, uint32_t values, const uint32_t weights[4])
{
#ifdef MDY_DSP
    __asm__("ldmia  %[acc], {r8-r11}\n"
            "smlad  r8, %[x], %[a], r8\n"
            "smlad  r9, %[x], %[b], r9\n"
            "smlad  r10, %[x], %[c], r10\n"
            "smlad  r11, %[x], %[d], r11\n"
            "stmia  %[acc], {r8-r11}\n"
            :
            : [acc] "r"(acc), [x] "r"(values), [a] "r"(weights[0]), [b] "r"(weights[1]), [c] "r"(weights[2]),
              [d] "r"(weights[3])
            : "r8", "r9", "r10", "r11", "memory");
#else
    for (uint32_t i = 0; i < 4; i++) {
        acc[i] = mdy_smlad(values, weights[i], acc[i]);
    }
#endif
}

/* Adds to all outputs of some pixels what two channels' deltas bring; values: of each pixel both channels'. */
static void add_deltas(const mdy_conv_t *p, const int8_t *first, const int8_t *second, const uint32_t *values,
                       uint32_t pixels, int32_t *acc)
{
    const uint32_t outputs = p->out.c;
    uint32_t o = 0;
    for (; o + 4 <= outputs; o += 4) {
        const uint32_t one = mdy_load4(first + o);
        const uint32_t two = mdy_load4(second + o);
        const uint32_t front = mdy_lows(one, two);
        const uint32_t back = mdy_highs(one, two);
        const uint32_t weights[4] = {mdy_even(front), mdy_odd(front), mdy_even(back), mdy_odd(back)};
        for (uint32_t pixel = 0; pixel < pixels; pixel++) {
            add_four(acc + pixel * outputs + o, values[pixel], weights);
        }
    }
    for (; o < outputs; o++) {
        const uint32_t weights = mdy_lows((uint32_t)first[o], (uint32_t)second[o]);
        for (uint32_t pixel = 0; pixel < pixels; pixel++) {
            acc[pixel * outputs + o] = mdy_smlad(values[pixel], weights, acc[pixel * outputs + o]);
        }
    }
}

/* What a tap of two channels looks at from some output pixels of a row, less the zero point; returns whether it is all 0. */
static int values_of(const mdy_conv_t *p, const mdy_view_t *x, const uint32_t channel[2], int32_t iy, int32_t ix,
                     uint32_t pixels, uint32_t *values)
{
    uint32_t any = 0;
    const int8_t *row = iy >= 0 && iy < p->in.h ? mdy_row(x, iy) : NULL;
    for (uint32_t pixel = 0; pixel < pixels; pixel++, ix += p->stride_w) {
        values[pixel] = 0;
        if (row != NULL && ix >= 0 && ix < p->in.w) {
            const int8_t *value = row + ix * p->in.c;
            values[pixel] = mdy_lows((uint32_t)(value[channel[0]] - p->x_zero),
                                     (uint32_t)(value[channel[1]] - p->x_zero));
        }
        any |= values[pixel];
    }
    return any == 0;
}

/* Adds what two selected channels bring to some output pixels of a row; other == NULL: one. */
static void correct_row(const mdy_conv_t *p, const mdy_view_t *x, uint8_t *record, uint8_t *other, int32_t oy,
                        int32_t ox, uint32_t pixels, int32_t *acc)
{
    const uint32_t channel[2] = {mdy_record_channel(record), mdy_record_channel(other == NULL ? record : other)};
    const int8_t *first = mdy_record_delta(record);
    const int8_t *second = other == NULL ? first : mdy_record_delta(other);
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        for (int32_t kx = 0; kx < p->kernel_w; kx++, first += p->out.c, second += p->out.c) {
            uint32_t values[MDY_DSP_PIXELS];
            const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
            const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
            if (values_of(p, x, channel, iy, ix, pixels, values)) {
                continue;
            }
            for (uint32_t pixel = 0; pixel < pixels && other == NULL; pixel++) {
                values[pixel] &= 0xFFFFu;
            }
            add_deltas(p, first, second, values, pixels, acc);
        }
    }
}

/* Whether a layer goes along a column of single pixels: those of a whole tensor lie side by side, as a row's do. */
static int is_column(const mdy_conv_t *p)
{
    return p->in.w == 1 && p->out.w == 1 && p->kernel_w == 1 && p->pad_left == 0;
}

/* The layer of a column as one of a row. */
static mdy_conv_t laid_down(const mdy_conv_t *p)
{
    mdy_conv_t row = *p;
    row.in.w = p->in.h;
    row.out.w = p->out.h;
    row.in.h = row.out.h = 1;
    row.kernel_w = p->kernel_h;
    row.stride_w = p->stride_h;
    row.dilation_w = p->dilation_h;
    row.pad_left = p->pad_top;
    row.kernel_h = row.stride_h = row.dilation_h = 1;
    row.pad_top = 0;
    return row;
}

/* The bias, and what selected channels bring, of a tile of outputs. */
static void correct_tile(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                         int32_t *acc_init)
{
    for (int32_t oy = tile.rows.begin; oy < tile.rows.end; oy++) {
        for (int32_t ox = tile.columns.begin; ox < tile.columns.end; ox += (int32_t)MDY_DSP_PIXELS) {
            const uint32_t left = (uint32_t)(tile.columns.end - ox);
            const uint32_t pixels = left < MDY_DSP_PIXELS ? left : MDY_DSP_PIXELS;
            for (uint32_t pixel = 0; pixel < pixels; pixel++) {
                memcpy(acc_init + pixel * p->out.c, sel->bias, p->out.c * sizeof *acc_init);
            }
            for (uint32_t slot = 0; slot < sel->count; slot += 2) {
                uint8_t *other = slot + 1 < sel->count ? mdy_record(sel, slot + 1) : NULL;
                correct_row(p, x, mdy_record(sel, slot), other, oy, ox, pixels, acc_init);
            }
            acc_init += pixels * p->out.c;
        }
    }
}

void mdy_dsp_conv2d_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                            int32_t *acc_init)
{
    if (p->group_in != p->in.c) {
        mdy_conv2d_correct(p, sel, x, tile, acc_init);
    } else if (is_column(p) && x->rows >= p->in.h && tile.columns.begin < tile.columns.end) {
        const mdy_conv_t row = laid_down(p);
        const mdy_tile_t along = {{0, 1}, tile.rows};
        correct_tile(&row, sel, x, along, acc_init);
    } else {
        correct_tile(p, sel, x, tile, acc_init);
    }
}

#if MDY_GRAD_BITS == 8
#define TURNED 4u       /* outputs that are turned together, and pixels */
#define TURNED_WORDS 8u /* of them */

/* One call: what it adds to. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_selected_t *sel;
    mdy_band_t columns; /* output pixels of a row */
    uint32_t pitch;     /* from slot to slot */
    uint32_t *turned;   /* of a run of pixels */
    int8_t *apart;      /* what the map holds at a stride, side by side */
    uint32_t run;       /* pixels, a multiple of TURNED */
} gradients_t;

/*
 * Turns the gradients of four outputs: of every four pixels the first and the third of each output, then the second and
 * the fourth, as SXTAB16 takes them from the map. What is missing to whole fours becomes zeros.
 */
static void turn(const mdy_grad_t *g, uint32_t pitch, uint32_t count, uint32_t *turned)
{
    for (uint32_t pixel = 0; pixel < count; pixel += TURNED, turned += TURNED_WORDS, g += TURNED * pitch) {
        const uint32_t left = count - pixel;
        const uint32_t a = mdy_load4(g);
        const uint32_t b = left > 1 ? mdy_load4(g + pitch) : 0;
        const uint32_t c = left > 2 ? mdy_load4(g + 2 * pitch) : 0;
        const uint32_t d = left > 3 ? mdy_load4(g + 3 * pitch) : 0;
        turned[0] = mdy_lows(mdy_even(a), mdy_even(c));
        turned[1] = mdy_lows(mdy_odd(a), mdy_odd(c));
        turned[2] = mdy_highs(mdy_even(a), mdy_even(c));
        turned[3] = mdy_highs(mdy_odd(a), mdy_odd(c));
        turned[4] = mdy_lows(mdy_even(b), mdy_even(d));
        turned[5] = mdy_lows(mdy_odd(b), mdy_odd(d));
        turned[6] = mdy_highs(mdy_even(b), mdy_even(d));
        turned[7] = mdy_highs(mdy_odd(b), mdy_odd(d));
    }
}

#ifdef MDY_DSP
/* Adds the products of fours of turned gradients with a map, less its zero point, to the sums of four outputs. */
static void multiply_map(const uint32_t *turned, const int8_t *map, uint32_t fours, uint32_t minus_zero,
                         int32_t sums[TURNED])
{
    int32_t a = sums[0];
    int32_t b = sums[1];
    int32_t c = sums[2];
    int32_t d = sums[3];
    for (const uint32_t *end = turned + fours * TURNED_WORDS; turned != end;) {
        uint32_t values;
        uint32_t pair;
        __asm__("ldr     %[values], [%[map]], #4\n"
                "ldmia   %[g]!, {r8, r9}\n"
                "sxtab16 %[pair], %[zero], %[values]\n"
                "smlad   %[a], r8, %[pair], %[a]\n"
                "smlad   %[b], r9, %[pair], %[b]\n"
                "ldmia   %[g]!, {r8, r9}\n"
                "smlad   %[c], r8, %[pair], %[c]\n"
                "smlad   %[d], r9, %[pair], %[d]\n"
                "ldmia   %[g]!, {r8, r9}\n"
                "sxtab16 %[pair], %[zero], %[values], ror #8\n"
                "smlad   %[a], r8, %[pair], %[a]\n"
                "smlad   %[b], r9, %[pair], %[b]\n"
                "ldmia   %[g]!, {r8, r9}\n"
                "smlad   %[c], r8, %[pair], %[c]\n"
                "smlad   %[d], r9, %[pair], %[d]\n"
                : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [g] "+&r"(turned), [map] "+&r"(map),
                  [values] "=&r"(values), [pair] "=&r"(pair)
                : [zero] "r"(minus_zero)
                : "r8", "r9", "memory");
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}
#else
/* Adds the products of fours of turned gradients with a map, less its zero point, to the sums of four outputs. */
static void multiply_map(const uint32_t *turned, const int8_t *map, uint32_t fours, uint32_t minus_zero,
                         int32_t sums[TURNED])
{
    for (; fours > 0; fours--, map += TURNED, turned += TURNED_WORDS) {
        const uint32_t even = mdy_add_even(minus_zero, mdy_load4(map));
        const uint32_t odd = mdy_add_odd(minus_zero, mdy_load4(map));
        for (uint32_t o = 0; o < TURNED; o++) {
            sums[o] = mdy_smlad(turned[o], even, sums[o]);
            sums[o] = mdy_smlad(turned[TURNED + o], odd, sums[o]);
        }
    }
}
#endif

/* Adds what `count` pixels side by side, of a run at most, bring to a tap: dy begins at their first output, the maps at `at`. */
static void add_run(const gradients_t *job, const mdy_grad_t *dy, uint32_t at, uint32_t count, mdy_wacc_t *sums)
{
    const mdy_conv_t *p = job->p;
    const uint32_t fours = count / TURNED;
    const uint32_t rest = count % TURNED;
    const uint32_t minus_zero = mdy_dsp_minus_zero(p);
    for (uint32_t o = 0; o < p->out.c; o += TURNED, sums += TURNED) {
        turn(dy + o, p->out.c, count, job->turned);
        mdy_wacc_t *own = sums;
        for (uint32_t slot = 0; slot < job->sel->count; slot++, own += job->pitch) {
            const int8_t *map = mdy_record_map(job->sel, mdy_record(job->sel, slot)) + at;
            if (p->stride_w != 1) {
                for (uint32_t i = 0; i < count; i++) {
                    job->apart[i] = map[i * p->stride_w];
                }
                map = job->apart;
            }
            multiply_map(job->turned, map, fours, minus_zero, own);
            if (rest > 0) {
                int8_t last[TURNED] = {0, 0, 0, 0};
                memcpy(last, map + fours * TURNED, rest);
                multiply_map(job->turned + fours * TURNED_WORDS, last, 1, minus_zero, own);
            }
        }
    }
}

/* Adds what pixels side by side bring to a tap. */
static void add_pixels(const gradients_t *job, const mdy_grad_t *dy, uint32_t at, uint32_t count, mdy_wacc_t *sums)
{
    const uint32_t step = job->p->stride_w;
    for (uint32_t pixel = 0; pixel < count; pixel += job->run) {
        const uint32_t some = count - pixel < job->run ? count - pixel : job->run;
        add_run(job, dy + pixel * job->p->out.c, at + pixel * step, some, sums);
    }
}

/* Adds what rows of dy bring to a tap. */
static void add_tap(const gradients_t *job, uint32_t tap, const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums)
{
    const mdy_conv_t *p = job->p;
    const int32_t down = (int32_t)tap / p->kernel_w * p->dilation_h - p->pad_top;
    const int32_t right = (int32_t)tap % p->kernel_w * p->dilation_w - p->pad_left;
    int32_t begin = job->columns.begin; /* the first of them whose tap is inside, and behind the last one */
    int32_t end = job->columns.end;
    while (begin < end && begin * p->stride_w + right < 0) {
        begin++;
    }
    while (end > begin && (end - 1) * p->stride_w + right >= p->in.w) {
        end--;
    }
    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        const int32_t iy = oy * p->stride_h + down;
        if (iy >= 0 && iy < p->in.h) {
            const uint32_t at = (uint32_t)(iy * p->in.w + begin * p->stride_w + right);
            add_pixels(job, mdy_grad_row(dy, oy) + begin * p->out.c, at, (uint32_t)(end - begin), sums);
        }
    }
}

void mdy_dsp_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                    const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace)
{
    const uint32_t four_bytes = TURNED_WORDS * (uint32_t)sizeof(uint32_t) + TURNED;
    const uint32_t run = workspace.bytes / four_bytes * TURNED;
    /* Rows of a whole tensor lie side by side, in dy as in the maps. */
    const int is_whole = dy->rows >= p->out.h;
    const int is_one_run = mdy_dsp_is_pixelwise(p) && is_whole;
    const int is_row = !is_one_run && is_column(p) && is_whole;
    const uint32_t height = (uint32_t)rows.end - rows.begin;
    const uint32_t pixels = is_one_run ? height * p->out.w : is_row ? height : p->out.w;
    if (p->group_in != p->in.c || p->out.c % TURNED != 0 || run == 0 || pixels < TURNED) {
        mdy_conv2d_backward_weight(p, sel, taps, dy, rows, sums, workspace);
        return;
    }
    const mdy_conv_t row = laid_down(p);
    const mdy_band_t all = {0, p->out.w};
    const gradients_t job = {
        .p = is_row ? &row : p,
        .sel = sel,
        .columns = is_row ? rows : all,
        .pitch = (uint32_t)(taps.end - taps.begin) * p->out.c,
        .turned = (uint32_t *)(void *)workspace.at,
        .apart = (int8_t *)(workspace.at + run / TURNED * TURNED_WORDS * sizeof(uint32_t)),
        .run = run,
    };
    if (is_one_run) {
        if (taps.begin < taps.end) { /* there is one */
            add_pixels(&job, mdy_grad_row(dy, rows.begin), (uint32_t)rows.begin * p->in.w, pixels, sums);
        }
        return;
    }
    const mdy_band_t first = {0, 1};
    for (uint32_t tap = taps.begin; tap < taps.end; tap++, sums += p->out.c) {
        add_tap(&job, tap, dy, is_row ? first : rows, sums);
    }
}
#else
void mdy_dsp_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                    const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace)
{
    mdy_conv2d_backward_weight(p, sel, taps, dy, rows, sums, workspace);
}
#endif
