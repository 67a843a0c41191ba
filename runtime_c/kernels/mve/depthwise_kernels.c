/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Depthwise convolution for cores with the M-profile vector extension: four channels in the lanes of a vector.
 *
 * A row of channels of the input, sixteen at most, is copied pixel by pixel, with zero points where padding is, and so are
 * their filters. Then pixels and taps are at fixed distances, and what a tap of a filter is loaded for are four outputs side
 * by side. What this family has no room for is the portable kernel's.
 */
#include "mdy/ops/depthwise.h"

#include "mdy/dsp.h"
#include "mdy/mve.h"

#define CHANNELS MDY_MVE_BYTES /* of a turn */
#define TOGETHER 4u            /* outputs that are made at once */

/* One turn of a call: some channels. */
typedef struct {
    const mdy_conv_t *p;
    const mdy_view_t *x;
    mdy_band_t columns;    /* of the output */
    uint32_t row_bytes;    /* of a copied row */
    int8_t *rows;          /* (rows, pixels, CHANNELS) of the input */
    int8_t *filter;        /* (taps, CHANNELS) */
    uint32_t first, count; /* channels of this turn */
    uint32_t start_row;    /* sums so far from row to row of the output */
} job_t;

/* Four channels of a turn. */
typedef struct {
    uint32_t first; /* of the layer */
    const int8_t *filter;
    mdy_mve_outputs_t q;
    mdy_v4_t minus_zero; /* what the input's zero point brings to every sum */
} lanes_t;

/* Pixels of the input that `width` outputs of a row read. */
static uint32_t columns_of(const mdy_conv_t *p, uint32_t width)
{
    return (width - 1) * p->stride_w + p->kernel_w;
}

/* Rows of the input that so many rows of the output read. */
static uint32_t rows_of(const mdy_conv_t *p, uint32_t rows)
{
    return (rows - 1) * p->stride_h + p->kernel_h;
}

/* Bytes of a workspace for so many rows at once. */
static uint32_t room_for(const mdy_conv_t *p, uint32_t rows, uint32_t width)
{
    return CHANNELS * (rows_of(p, rows) * columns_of(p, width) + (uint32_t)p->kernel_h * p->kernel_w);
}

/* Copies a row of the input, as far as the columns read it. */
static void copy_row(const job_t *job, int32_t iy, int8_t *to)
{
    const mdy_conv_t *p = job->p;
    const int32_t begin = job->columns.begin * p->stride_w - p->pad_left;
    const int32_t end = begin + (int32_t)(job->row_bytes / CHANNELS);
    const int32_t first = begin < 0 ? 0 : begin;
    const int32_t last = end > p->in.w ? p->in.w : end;
    if (iy < 0 || iy >= p->in.h || first >= last) {
        mdy_mve_fill(to, p->x_zero, job->row_bytes);
        return;
    }
    if (first > begin) {
        mdy_mve_fill(to, p->x_zero, (uint32_t)(first - begin) * CHANNELS);
    }
    if (end > last) {
        mdy_mve_fill(to + (uint32_t)(last - begin) * CHANNELS, p->x_zero, (uint32_t)(end - last) * CHANNELS);
    }
    const int8_t *from = mdy_row(job->x, iy) + (uint32_t)first * p->in.c + job->first;
    mdy_mve_pixels(to + (uint32_t)(first - begin) * CHANNELS, from, p->in.c, (uint32_t)(last - first), job->count);
}

/* Four outputs: where their windows begin, what their sums begin with, and where they go. */
typedef struct {
    const int8_t *x[TOGETHER];
    const int32_t *begin[TOGETHER];
    int8_t *y[TOGETHER];
} places_t;

/* Adds the products of four windows. */
static inline void four_windows(const job_t *job, const int8_t *x[TOGETHER], const int8_t *w, mdy_v4_t acc[TOGETHER])
{
    const uint32_t next_row = job->row_bytes - job->p->kernel_w * CHANNELS;
#pragma GCC unroll 1
    for (uint32_t ky = job->p->kernel_h; ky > 0; ky--) {
#pragma GCC unroll 1
        for (uint32_t kx = job->p->kernel_w; kx > 0; kx--, w += CHANNELS) {
            const mdy_v4_t tap = mdy_v4_load8(w);
#pragma GCC unroll 4
            for (uint32_t i = 0; i < TOGETHER; i++, x[i - 1] += CHANNELS) {
                acc[i] = mdy_v4_add(acc[i], mdy_v4_mul(mdy_v4_load8(x[i]), tap));
            }
        }
#pragma GCC unroll 4
        for (uint32_t i = 0; i < TOGETHER; i++) {
            x[i] += next_row;
        }
    }
}

/* Makes one output of four channels. */
static void one_output(const job_t *job, const lanes_t *lanes, const int8_t *x, const int32_t *begin, int8_t *y)
{
    const int8_t *w = lanes->filter;
    const uint32_t next_row = job->row_bytes - job->p->kernel_w * CHANNELS;
    mdy_v4_t acc = mdy_v4_add(mdy_v4_load(begin), lanes->minus_zero);
#pragma GCC unroll 1
    for (uint32_t ky = job->p->kernel_h; ky > 0; ky--, x += next_row) {
#pragma GCC unroll 4
        for (uint32_t kx = job->p->kernel_w; kx > 0; kx--, x += CHANNELS, w += CHANNELS) {
            acc = mdy_v4_add(acc, mdy_v4_mul(mdy_v4_load8(x), mdy_v4_load8(w)));
        }
    }
    mdy_mve_store(job->p, lanes->first, &lanes->q, acc, y);
}

/* Makes four outputs of four channels. */
static inline void four_outputs(const job_t *job, const lanes_t *lanes, const places_t *places)
{
    const int8_t *x[TOGETHER];
    mdy_v4_t acc[TOGETHER];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < TOGETHER; i++) {
        x[i] = places->x[i];
        acc[i] = mdy_v4_add(mdy_v4_load(places->begin[i]), lanes->minus_zero);
    }
    if (job->p->kernel_w == 3) {
        mdy_mve_threes(acc, x, lanes->filter, job->p->kernel_h, job->row_bytes);
    } else {
        four_windows(job, x, lanes->filter, acc);
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < TOGETHER; i++) {
        mdy_mve_store(job->p, lanes->first, &lanes->q, acc[i], places->y[i]);
    }
}

/*
 * Outputs of some rows of four channels, one after the other: four at a time, of which the last one may come several
 * times, or one or two that are left.
 */
static void rows_of_outputs(const job_t *job, const lanes_t *lanes, const mdy_view_t *y, int32_t oy, uint32_t rows,
                            const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const uint32_t channels = p->in.c;
    const uint32_t width = (uint32_t)job->columns.end - job->columns.begin;
    const uint32_t step = p->stride_w * CHANNELS;
    const uint32_t begin_step = start == NULL ? 0 : channels;
    const uint32_t first = job->columns.begin * channels + lanes->first;
    const int8_t *x = job->rows + (lanes->filter - job->filter);
    const int8_t *x_row = x;
    const int32_t *begin = (start == NULL ? p->bias : start) + lanes->first;
    int8_t *out = mdy_row(y, oy) + first;
    uint32_t ox = 0;
#pragma GCC unroll 1
    for (uint32_t left = rows * width; left > 0;) {
        places_t places;
        uint32_t count = left < TOGETHER ? left : TOGETHER;
        left -= count;
        if (count <= 2 && count <= width) { /* of the last row */
            one_output(job, lanes, x, begin, out);
            if (count == 2) {
                one_output(job, lanes, x + step, begin + begin_step, out + channels);
            }
            return;
        }
        if (width - ox > TOGETHER) { /* the usual case, in fewer instructions */
#pragma GCC unroll 4
            for (uint32_t i = 0; i < TOGETHER; i++, x += step, begin += begin_step, out += channels) {
                places.x[i] = x;
                places.begin[i] = begin;
                places.y[i] = out;
            }
            ox += TOGETHER;
        } else {
#pragma GCC unroll 1
            for (uint32_t i = 0; i < TOGETHER; i++) {
                places.x[i] = x;
                places.begin[i] = begin;
                places.y[i] = out;
                if (i + 1 < count || left > 0) {
                    x += step;
                    begin += begin_step;
                    out += channels;
                    if (++ox == width) {
                        ox = 0;
                        x_row += p->stride_h * job->row_bytes;
                        x = x_row;
                        out = mdy_row(y, ++oy) + first;
                    }
                }
            }
        }
        four_outputs(job, lanes, &places);
    }
}

static lanes_t lanes_of(const job_t *job, uint32_t lane)
{
    const mdy_conv_t *p = job->p;
    lanes_t lanes;
    lanes.first = job->first + lane;
    lanes.filter = job->filter + lane;
    lanes.q = mdy_mve_outputs(p, lanes.first);
    mdy_v4_t sum = mdy_v4_all(0);
    const int8_t *end = lanes.filter + (uint32_t)p->kernel_h * p->kernel_w * CHANNELS;
#pragma GCC unroll 4
    for (const int8_t *w = lanes.filter; w != end; w += CHANNELS) {
        sum = mdy_v4_add(sum, mdy_v4_load8(w));
    }
    lanes.minus_zero = mdy_v4_mul(sum, mdy_v4_all(-p->x_zero));
    return lanes;
}

/* Some rows of the output, of the channels of a turn. start: sums so far of the first pixel, or NULL: the biases. */
static void some_rows(const job_t *job, const mdy_view_t *y, int32_t oy, uint32_t rows, const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const int32_t first = oy * p->stride_h - p->pad_top;
    for (uint32_t row = 0; row < rows_of(p, rows); row++) {
        copy_row(job, first + (int32_t)row, job->rows + row * job->row_bytes);
    }
    for (uint32_t lane = 0; lane < job->count; lane += MDY_LANES) {
        const lanes_t lanes = lanes_of(job, lane + MDY_LANES <= job->count ? lane : job->count - MDY_LANES);
        rows_of_outputs(job, &lanes, y, oy, rows, start);
    }
}

static void mve_depthwise_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                                  mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    const uint32_t channels = p->in.c;
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    const uint32_t height = (uint32_t)tile.rows.end - tile.rows.begin;
    if (width == 0 || height == 0) {
        return;
    }
    uint32_t together = height;
    while (together > 0 && room_for(p, together, width) > workspace.bytes) {
        together--;
    }
    if (together == 0 || channels < MDY_LANES || p->w_zero != 0 || p->dilation_h != 1 || p->dilation_w != 1) {
        mdy_depthwise_forward(p, w, x, y, tile, acc_init, workspace);
        return;
    }
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w;
    job_t job = {
        .p = p,
        .x = x,
        .columns = tile.columns,
        .row_bytes = columns_of(p, width) * CHANNELS,
        .filter = (int8_t *)workspace.at,
        .rows = (int8_t *)workspace.at + taps * CHANNELS,
        .start_row = width * channels,
    };
    for (uint32_t first = 0; first < channels; first += CHANNELS) {
        job.count = channels - first < CHANNELS ? channels - first : CHANNELS;
        job.first = first;
        if (job.count < MDY_LANES) { /* the turn begins with some that were made */
            job.first = channels - MDY_LANES;
            job.count = MDY_LANES;
        }
        mdy_mve_pixels(job.filter, w + job.first, channels, taps, job.count);
        const int32_t *start = acc_init;
        for (uint32_t row = 0; row < height; row += together) {
            const uint32_t some = height - row < together ? height - row : together;
            some_rows(&job, y, (int32_t)(tile.rows.begin + row), some, start);
            start += start != NULL ? some * job.start_row : 0u;
        }
    }
}

const mdy_weighted_op_t mdy_depthwise = {
    .forward = mve_depthwise_forward,
    .correct = mdy_depthwise_correct,
    .backward_input = mdy_dsp_depthwise_backward_input,
    .backward_weight = mdy_depthwise_backward_weight,
    .weight_offset = mdy_depthwise_weight_offset,
};
