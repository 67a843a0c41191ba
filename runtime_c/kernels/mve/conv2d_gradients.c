/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense convolution backwards for cores with the M-profile vector extension. Lanes are input channels for the gradient of
 * the input, outputs for what deltas add to the forward pass, and pixels for the gradient of the weights, since the saved
 * maps lie channel by channel.
 */
#include "mdy/ops/conv2d.h"

#include <string.h>

#include "mdy/mve.h"

/* A dense filter that is read as it is: the offset of an output's weights of a tap is o * pitch + tap * channels. */
static int is_product(const mdy_conv_t *p)
{
    return p->group_in == p->in.c && p->w_zero == 0;
}

/* g_acc of all outputs of a pixel, see mdy_grad_acc. */
static void scale_pixel(const mdy_conv_t *p, const mdy_grad_t *dy, int16_t *g_acc)
{
    const mdy_v4_t shift = mdy_v4_all(1 - MDY_GRAD_BITS);
    uint32_t o = 0;
#pragma GCC unroll 1
    for (; o + MDY_LANES <= p->out.c; o += MDY_LANES) {
        const mdy_v4_t product = mdy_v4_mul(mdy_v4_load_grad(dy + o), mdy_v4_load16(p->grad_mult + o));
        mdy_v4_store16(g_acc + o, mdy_v4_shift(product, shift));
    }
#pragma GCC unroll 1
    for (; o < p->out.c; o++) {
        g_acc[o] = mdy_grad_acc(p, dy[o], o);
    }
}

/* Adds to so many vectors of channels, a constant, what one output pixel brings; w: of the first output. */
static inline void spread_vectors(uint32_t vectors, const int16_t *g, uint32_t outputs, const int8_t *w, uint32_t pitch,
                                  int32_t *acc)
{
    mdy_v4_t sums[4];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < vectors; i++) {
        sums[i] = mdy_v4_load(acc + i * MDY_LANES);
    }
#pragma GCC unroll 1
    for (const int16_t *end = g + outputs; g != end; g++, w += pitch) {
        const int32_t term = *g;
        if (term != 0) { /* about half are 0: masked, or too small for the exponent */
#pragma GCC unroll 4
            for (uint32_t i = 0; i < vectors; i++) {
                sums[i] = mdy_v4_add_times(sums[i], mdy_v4_load8(w + i * MDY_LANES), term);
            }
        }
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < vectors; i++) {
        mdy_v4_store(acc + i * MDY_LANES, sums[i]);
    }
}

/* Adds what one output pixel brings through a tap. */
static void spread_tap(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel, const int16_t *g_acc,
                       uint32_t tap, int32_t *acc)
{
    const uint32_t channels = p->in.c;
    const uint32_t outputs = p->out.c;
    const uint32_t pitch = (uint32_t)p->kernel_h * p->kernel_w * channels;
    uint32_t c = 0;
    w += tap * channels;
    for (; c + 4 * MDY_LANES <= channels; c += 4 * MDY_LANES) {
        spread_vectors(4, g_acc, outputs, w + c, pitch, acc + c);
    }
    for (; c + MDY_LANES <= channels; c += MDY_LANES) {
        spread_vectors(1, g_acc, outputs, w + c, pitch, acc + c);
    }
#pragma GCC unroll 1
    for (; c < channels; c++) {
#pragma GCC unroll 1
        for (uint32_t o = 0; o < outputs; o++) {
            acc[c] += g_acc[o] * w[o * pitch + c];
        }
    }
    for (uint32_t slot = 0; slot < sel->count; slot += MDY_LANES) {
        const uint32_t count = sel->count - slot < MDY_LANES ? sel->count - slot : MDY_LANES;
        const int8_t *delta = mdy_record_delta(mdy_record(sel, slot)) + tap * outputs;
        int32_t sums[MDY_LANES];
        mdy_mve_dot16(g_acc, delta, sel->record_bytes, count, outputs, sums);
        for (uint32_t i = 0; i < count; i++) {
            acc[mdy_record_channel(mdy_record(sel, slot + i))] += sums[i];
        }
    }
}

/* The output coordinate whose tap `k` looks at input coordinate i, or -1. */
static int32_t covering(int32_t i, int32_t pad, int32_t k, int32_t stride, int32_t out)
{
    const int32_t n = i + pad - k;
    if (stride == 1) {
        return n < 0 || n >= out ? -1 : n;
    }
    return n < 0 || n % stride != 0 || n / stride >= out ? -1 : n / stride;
}

void mdy_mve_conv2d_backward_input(const mdy_conv_t *p, const int8_t *w, const mdy_selected_t *sel,
                                   const mdy_view_t *dy, mdy_band_t rows, mdy_sink_t *sink, mdy_workspace_t workspace)
{
    if (!is_product(p)) {
        mdy_conv2d_backward_input(p, w, sel, dy, rows, sink, workspace);
        return;
    }
    for (int32_t iy = rows.begin; iy < rows.end; iy++) {
        for (int32_t ix = 0; ix < p->in.w; ix++) {
            int32_t *acc = mdy_sink_begin(sink);
            int16_t *g_acc = mdy_sink_terms(sink);
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                const int32_t oy = covering(iy, p->pad_top, ky * p->dilation_h, p->stride_h, p->out.h);
                if (oy < 0) {
                    continue;
                }
                const mdy_grad_t *dy_row = mdy_grad_row(dy, oy);
                for (int32_t kx = 0; kx < p->kernel_w; kx++) {
                    const int32_t ox = covering(ix, p->pad_left, kx * p->dilation_w, p->stride_w, p->out.w);
                    if (ox >= 0) {
                        scale_pixel(p, dy_row + ox * p->out.c, g_acc);
                        spread_tap(p, w, sel, g_acc, (uint32_t)(ky * p->kernel_w + kx), acc);
                    }
                }
            }
            mdy_sink_end(sink, iy, ix);
        }
    }
}

#define TERMS 16u /* taps of selected channels that are added together */

/* A tap of a selected channel, and what it looks at from the pixels of a tile, less the zero point. */
typedef struct {
    const int8_t *delta; /* of all outputs */
    int32_t values[MDY_TILE];
} term_t;

/* Adds what terms bring to four outputs from `o` on of so many pixels, a constant, from one of the tile on. */
static inline void add_terms(const term_t *term, uint32_t count, uint32_t o, uint32_t pixel, uint32_t pixels,
                             int32_t *acc, uint32_t outputs)
{
    mdy_v4_t sums[MDY_TILE];
    acc += pixel * outputs + o;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < pixels; i++) {
        sums[i] = mdy_v4_load(acc + i * outputs);
    }
#pragma GCC unroll 1
    for (const term_t *end = term + count; term != end; term++) {
        const mdy_v4_t delta = mdy_v4_load8(term->delta + o);
#pragma GCC unroll 4
        for (uint32_t i = 0; i < pixels; i++) {
            sums[i] = mdy_v4_add_times(sums[i], delta, term->values[pixel + i]);
        }
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < pixels; i++) {
        mdy_v4_store(acc + i * outputs, sums[i]);
    }
}

/* Adds what terms bring to all outputs of some pixels of a tile. */
static void add_to_tile(const term_t *terms, uint32_t count, uint32_t pixels, int32_t *acc, uint32_t outputs)
{
    uint32_t o = 0;
#pragma GCC unroll 1
    for (; o + MDY_LANES <= outputs; o += MDY_LANES) {
        if (pixels == MDY_TILE) {
            add_terms(terms, count, o, 0, MDY_TILE, acc, outputs);
            continue;
        }
#pragma GCC unroll 1
        for (uint32_t pixel = 0; pixel < pixels; pixel++) {
            add_terms(terms, count, o, pixel, 1, acc, outputs);
        }
    }
#pragma GCC unroll 1
    for (; o < outputs; o++) {
#pragma GCC unroll 1
        for (uint32_t pixel = 0; pixel < pixels; pixel++) {
#pragma GCC unroll 1
            for (const term_t *term = terms; term != terms + count; term++) {
                acc[pixel * outputs + o] += term->delta[o] * term->values[pixel];
            }
        }
    }
}

/* Some output pixels of a call, from (oy, ox) on. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_selected_t *sel;
    const mdy_view_t *x;
    mdy_band_t columns; /* of the call */
    int32_t oy, ox;
    uint32_t pixels; /* MDY_TILE at most */
} some_t;

/* Where a tap looks for each of the pixels; NULL: at padding, or there is no such pixel. Returns whether it does at any. */
static int find_inputs(const some_t *some, int32_t ky, int32_t kx, const int8_t *at[MDY_TILE])
{
    const mdy_conv_t *p = some->p;
    int32_t oy = some->oy;
    int32_t ox = some->ox;
    int found = 0;
#pragma GCC unroll 1
    for (uint32_t i = 0; i < MDY_TILE; i++) {
        const int32_t iy = oy * p->stride_h - p->pad_top + ky * p->dilation_h;
        const int32_t ix = ox * p->stride_w - p->pad_left + kx * p->dilation_w;
        at[i] = NULL;
        if (i < some->pixels && iy >= 0 && iy < p->in.h && ix >= 0 && ix < p->in.w) {
            at[i] = mdy_row(some->x, iy) + (uint32_t)ix * p->in.c;
            found = 1;
        }
        if (++ox == some->columns.end) {
            ox = some->columns.begin;
            oy++;
        }
    }
    return found;
}

/* Sets what a channel's tap looks at; returns whether that is anything but zeros. */
static inline int set_values(term_t *term, const int8_t *const at[MDY_TILE], uint32_t c, int32_t zero)
{
    int32_t any = 0;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < MDY_TILE; i++) {
        const int32_t value = at[i] == NULL ? 0 : at[i][c] - zero;
        term->values[i] = value;
        any |= value;
    }
    return any != 0;
}

/* Adds what the deltas bring to some output pixels. */
static void correct_some(const some_t *some, int32_t *acc)
{
    const mdy_conv_t *p = some->p;
    const mdy_selected_t *sel = some->sel;
    const uint32_t outputs = p->out.c;
    const int32_t zero = p->x_zero;
    term_t terms[TERMS];
    uint32_t count = 0;
    for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; tap++) {
        const int8_t *at[MDY_TILE];
        if (!find_inputs(some, tap / p->kernel_w, tap % p->kernel_w, at)) {
            continue;
        }
        uint8_t *record = sel->records;
#pragma GCC unroll 1
        for (uint32_t slot = 0; slot < sel->count; slot++, record += sel->record_bytes) {
            if (set_values(&terms[count], at, mdy_record_channel(record), zero)) {
                terms[count++].delta = mdy_record_delta(record) + (uint32_t)tap * outputs;
            }
            if (count == TERMS) {
                add_to_tile(terms, count, some->pixels, acc, outputs);
                count = 0;
            }
        }
    }
    add_to_tile(terms, count, some->pixels, acc, outputs);
}

void mdy_mve_conv2d_correct(const mdy_conv_t *p, const mdy_selected_t *sel, const mdy_view_t *x, mdy_tile_t tile,
                            int32_t *acc_init)
{
    if (p->group_in != p->in.c) {
        mdy_conv2d_correct(p, sel, x, tile, acc_init);
        return;
    }
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    const uint32_t all = width * ((uint32_t)tile.rows.end - tile.rows.begin);
    for (uint32_t first = 0; first < all; first += MDY_TILE) {
        const some_t some = {
            .p = p,
            .sel = sel,
            .x = x,
            .columns = tile.columns,
            .oy = (int32_t)(tile.rows.begin + first / width),
            .ox = (int32_t)(tile.columns.begin + first % width),
            .pixels = all - first < MDY_TILE ? all - first : MDY_TILE,
        };
        for (uint32_t pixel = 0; pixel < some.pixels; pixel++) {
            memcpy(acc_init + pixel * p->out.c, sel->bias, p->out.c * sizeof *acc_init);
        }
        correct_some(&some, acc_init);
        acc_init += some.pixels * p->out.c;
    }
}

#if MDY_GRAD_BITS == 8
/* A layer as the gradient of its weights sees it: along a line of pixels, and across lines. */
typedef struct {
    int32_t in, kernel, stride, pad, dilation; /* in: pixels */
} axis_t;

/* One call. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_selected_t *sel;
    axis_t along, across;
    int8_t *turned; /* (MDY_LANES, pitch): a line of gradients, with zeros between them where there is a stride */
    uint32_t pitch;
    uint32_t taps; /* of a slot that are asked for */
} job_t;

static uint32_t turned_bytes(int32_t pixels, int32_t stride)
{
    return pixels == 0 ? 0 : (uint32_t)((pixels - 1) * stride + 1);
}

/* Turns `count` pixels' gradients of four outputs, from `ox` on of a line; g: of the first pixel of the line. */
static void turn(const job_t *job, const mdy_grad_t *g, uint32_t ox, uint32_t count)
{
    const uint32_t channels = job->p->out.c;
    const uint32_t stride = (uint32_t)job->along.stride;
    if (stride > 1) {
        mdy_mve_fill(job->turned, 0, MDY_LANES * job->pitch);
    }
    int8_t *to = job->turned;
    g += ox * channels;
#pragma GCC unroll 1
    for (const mdy_grad_t *end = g + count * channels; g != end; g += channels, to += stride) {
        to[0] = g[0];
        to[job->pitch] = g[1];
        to[2 * job->pitch] = g[2];
        to[3 * job->pitch] = g[3];
    }
}

/* Adds what `count` turned pixels, from `ox` on of a line, bring to the taps; line: of the input, sums: of four outputs. */
static void add_turned(const job_t *job, uint32_t ox, uint32_t count, mdy_band_t taps, uint32_t line, mdy_wacc_t *sums)
{
    const axis_t *along = &job->along;
    const uint32_t outputs = job->p->out.c;
    const int32_t ox_end = (int32_t)(ox + count);
    for (uint32_t k = taps.begin; k < taps.end; k++, sums += outputs) {
        const int32_t right = (int32_t)k * along->dilation - along->pad;
        int32_t first = (int32_t)ox; /* whose tap is inside, and behind the last one */
        int32_t last = ox_end;
        while (first < last && first * along->stride + right < 0) {
            first++;
        }
        while (last > first && (last - 1) * along->stride + right >= along->in) {
            last--;
        }
        if (first == last) {
            continue;
        }
        const int8_t *g = job->turned + (first - (int32_t)ox) * along->stride;
        const uint32_t bytes = turned_bytes(last - first, along->stride);
        const uint32_t at = line * (uint32_t)along->in + (uint32_t)(first * along->stride + right);
        const mdy_v4_t minus_zero = mdy_v4_mul(mdy_mve_sums(g, job->pitch, bytes), mdy_v4_all(-job->p->x_zero));
        mdy_wacc_t *own = sums;
        const int8_t *map = mdy_record_map(job->sel, job->sel->records) + at;
#pragma GCC unroll 1
        for (uint32_t slot = 0; slot < job->sel->count; slot++) {
            mdy_v4_store(own, mdy_v4_add(mdy_mve_dot(own, map, g, job->pitch, bytes), minus_zero));
            own += job->taps * outputs;
            map += job->sel->record_bytes;
        }
    }
}

/* The same of all taps, one row of the window after the other; oy: the line of the output. */
static void add_windows(const job_t *job, int32_t oy, uint32_t ox, uint32_t count, mdy_band_t taps, mdy_wacc_t *sums)
{
    const axis_t *across = &job->across;
    const uint32_t kernel = (uint32_t)job->along.kernel;
    for (uint32_t tap = taps.begin; tap < taps.end;) {
        const uint32_t ky = tap / kernel;
        const uint32_t end = (ky + 1) * kernel < taps.end ? (ky + 1) * kernel : taps.end;
        const int32_t iy = oy * across->stride - across->pad + (int32_t)ky * across->dilation;
        if (iy >= 0 && iy < across->in) {
            const mdy_band_t some = {(uint16_t)(tap - ky * kernel), (uint16_t)(end - ky * kernel)};
            add_turned(job, ox, count, some, (uint32_t)iy, sums + (tap - taps.begin) * job->p->out.c);
        }
        tap = end;
    }
}

/* Whether rows of one pixel each lie side by side, in dy and in the maps: then a line is a column. */
static int is_column(const mdy_conv_t *p, const mdy_view_t *dy)
{
    return p->in.w == 1 && p->out.w == 1 && p->kernel_w == 1 && p->pad_left == 0 && dy->rows >= p->out.h;
}

/* Whether pixel for pixel of the input is one of the output, all of them side by side. */
static int is_line(const mdy_conv_t *p, const mdy_view_t *dy)
{
    return p->kernel_h == 1 && p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0 && p->stride_h == 1 &&
           p->stride_w == 1 && p->in.h == p->out.h && p->in.w == p->out.w && dy->rows >= p->out.h;
}

void mdy_mve_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                    const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace)
{
    const axis_t one = {1, 1, 1, 0, 1};
    const int is_one = is_line(p, dy) || is_column(p, dy);
    job_t job = {
        .p = p,
        .sel = sel,
        .along = {p->in.w, p->kernel_w, p->stride_w, p->pad_left, p->dilation_w},
        .across = {p->in.h, p->kernel_h, p->stride_h, p->pad_top, p->dilation_h},
        .turned = (int8_t *)workspace.at,
        .pitch = workspace.bytes / MDY_LANES,
        .taps = (uint32_t)(taps.end - taps.begin),
    };
    if (is_one) {
        job.along = is_column(p, dy) ? job.across : one;
        job.along.in = p->in.h * p->in.w;
        job.across = one;
    }
    const mdy_band_t lines = {is_one ? 0 : rows.begin, is_one ? 1 : rows.end};
    const uint32_t begin = is_one ? (uint32_t)rows.begin * p->out.w : 0; /* pixels of a line */
    const uint32_t end = is_one ? (uint32_t)rows.end * p->out.w : p->out.w;
    const uint32_t whole = turned_bytes((int32_t)(end - begin), job.along.stride);
    job.pitch = job.pitch < whole ? job.pitch : whole; /* what is beyond would be cleared for nothing */
    const uint32_t most = job.pitch == 0 ? 0
                                         : (job.pitch - 1) / (uint32_t)job.along.stride + 1; /* with room for them */
    if (p->group_in != p->in.c || p->out.c % MDY_LANES != 0 || most < MDY_LANES) {
        mdy_conv2d_backward_weight(p, sel, taps, dy, rows, sums, workspace);
        return;
    }
    if (sel->count == 0) {
        return;
    }
    for (uint32_t oy = lines.begin; oy < lines.end; oy++) {
        const mdy_grad_t *g = mdy_grad_row(dy, (int32_t)oy);
        for (uint32_t ox = begin; ox < end; ox += most) {
            const uint32_t count = end - ox < most ? end - ox : most;
            for (uint32_t o = 0; o < p->out.c; o += MDY_LANES) {
                turn(&job, g + o, ox, count);
                add_windows(&job, (int32_t)oy, ox, count, taps, sums + o);
            }
        }
    }
}
#else
void mdy_mve_conv2d_backward_weight(const mdy_conv_t *p, const mdy_selected_t *sel, mdy_band_t taps,
                                    const mdy_view_t *dy, mdy_band_t rows, mdy_wacc_t *sums, mdy_workspace_t workspace)
{
    mdy_conv2d_backward_weight(p, sel, taps, dy, rows, sums, workspace);
}
#endif
