/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense convolution for cores with the M-profile vector extension: VMLADAVA adds sixteen products of bytes.
 *
 * A convolution is a product of matrices. What a pixel's window holds lies side by side, where it is or copied from its
 * rows, padding as zero points; four outputs at a time are multiplied with it, sixteen taps at once, as all of them lie in
 * memory. The input's zero point comes in by the sum of an output's weights, made once for some pixels. What this family
 * has no way for is the portable kernel's.
 */
#include "mdy/ops/conv2d.h"

#include "mdy/mve.h"

#define WINDOWS 16u /* that are copied before they are multiplied */

/* One call. */
typedef struct {
    const mdy_conv_t *p;
    const int8_t *w;
    const mdy_view_t *x;
    uint32_t taps;   /* of an output */
    int8_t *windows; /* where they are copied to */
    int32_t *sums;   /* (outputs): of weights, or NULL: there is no room */
} job_t;

/* Pixels whose windows begin `pitch` bytes apart. */
typedef struct {
    const int8_t *x;
    uint32_t pitch;
    uint32_t count;
} pixels_t;

/* Whether every window is one pixel of the input: none lies in padding, behind the input either. */
static int is_pixel(const mdy_conv_t *p)
{
    return p->kernel_h == 1 && p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0 &&
           (p->out.h - 1) * p->stride_h < p->in.h && (p->out.w - 1) * p->stride_w < p->in.w;
}

/* Copies the taps of some output pixels from (oy, ox) on, side by side; all are in one row. */
static void copy_windows(const job_t *job, int32_t oy, int32_t ox, uint32_t count, int8_t *to)
{
    const mdy_conv_t *p = job->p;
    const int32_t channels = p->in.c;
    const int32_t width = p->kernel_w;
    const int8_t *rows[MDY_KERNEL_MAX];
#pragma GCC unroll 1
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int32_t iy = oy * p->stride_h - p->pad_top + ky;
        rows[ky] = iy >= 0 && iy < p->in.h ? mdy_row(job->x, iy) : NULL;
    }
    int32_t ix0 = ox * p->stride_w - p->pad_left;
#pragma GCC unroll 1
    for (; count > 0; count--, ix0 += p->stride_w) {
        int32_t kx0 = 0;
        int32_t kx1 = width;
        const int is_inside = ix0 >= 0 && ix0 + width <= p->in.w;
        if (!is_inside) {
            mdy_taps(ix0, 1, width, p->in.w, &kx0, &kx1);
        }
#pragma GCC unroll 1
        for (int32_t ky = 0; ky < p->kernel_h; ky++, to += width * channels) {
            if (rows[ky] == NULL || !is_inside) {
                mdy_mve_fill(to, p->x_zero, (uint32_t)(width * channels));
            }
            if (rows[ky] != NULL) {
                mdy_mve_copy(to + kx0 * channels, rows[ky] + (ix0 + kx0) * channels,
                             (uint32_t)((kx1 - kx0) * channels));
            }
        }
    }
}

/* Outputs o to o + 3 of some pixels. begin: what the first one's sums begin with, so many before the next one's. */
static inline void four_outputs(const job_t *job, const pixels_t *pixels, uint32_t o, const int32_t *begin,
                                uint32_t pitch, int8_t *y)
{
    const mdy_conv_t *p = job->p;
    const uint32_t taps = job->taps;
    const uint32_t outputs = p->out.c;
    const int8_t *w = job->w + o * taps;
    const mdy_mve_outputs_t q = mdy_mve_outputs(p, o);
    const mdy_v4_t sums = job->sums != NULL ? mdy_v4_load(job->sums + o) : mdy_mve_sums(w, taps, taps);
    const mdy_v4_t minus_zero = mdy_v4_mul(sums, mdy_v4_all(-p->x_zero));
    const uint32_t x_pitch = pixels->pitch;
    const int8_t *x = pixels->x;
    const int8_t *end = y + pixels->count * outputs;
#pragma GCC unroll 1
    for (; y != end; x += x_pitch, begin += pitch, y += outputs) {
        const mdy_v4_t acc = mdy_v4_add(mdy_mve_dot(begin, x, w, taps, taps), minus_zero);
        mdy_mve_store(p, o, &q, acc, y);
    }
}

/*
 * All outputs of some pixels: where four do not divide them, the last four begin sooner, and some are made twice.
 * start: their sums so far, or NULL: the biases.
 */
static void all_outputs(const job_t *job, const pixels_t *pixels, const int32_t *start, int8_t *y)
{
    const uint32_t outputs = job->p->out.c;
    const int32_t *begin = start == NULL ? job->p->bias : start;
#pragma GCC unroll 1
    for (uint32_t next = 0; next < outputs; next += MDY_LANES) {
        const uint32_t o = next + MDY_LANES <= outputs ? next : outputs - MDY_LANES;
        four_outputs(job, pixels, o, begin + o, start == NULL ? 0 : outputs, y + o);
    }
}

static int is_product(const mdy_conv_t *p)
{
    return p->group_in == p->in.c && p->w_zero == 0 && p->dilation_h == 1 && p->dilation_w == 1;
}

/* Rows of pixels each of which is a window: `run` of them lie side by side. */
static void rows_of_pixels(const job_t *job, const mdy_view_t *y, mdy_tile_t tile, uint32_t run, const int32_t *start)
{
    const mdy_conv_t *p = job->p;
    const uint32_t outputs = p->out.c;
    const uint32_t pitch = (uint32_t)p->stride_w * p->in.c;
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    for (uint32_t oy = tile.rows.begin; oy < tile.rows.end; oy += run / width) {
        const int8_t *x = mdy_row(job->x, (int32_t)oy * p->stride_h) + tile.columns.begin * pitch;
        const pixels_t pixels = {x, pitch, run};
        all_outputs(job, &pixels, start, mdy_row(y, (int32_t)oy) + tile.columns.begin * outputs);
        start += start != NULL ? run * outputs : 0u;
    }
}

/* Rows of pixels whose windows are copied, `most` at a time: `run` of the outputs lie side by side. */
static void rows_of_windows(const job_t *job, const mdy_view_t *y, mdy_tile_t tile, uint32_t run, uint32_t most,
                            const int32_t *start)
{
    const uint32_t outputs = job->p->out.c;
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    for (uint32_t row = tile.rows.begin; row < tile.rows.end; row += run / width) {
        uint32_t oy = row;
        uint32_t ox = tile.columns.begin;
        int8_t *out = mdy_row(y, (int32_t)oy) + ox * outputs;
        for (uint32_t left = run; left > 0;) {
            const pixels_t pixels = {job->windows, job->taps, left < most ? left : most};
            for (uint32_t made = 0; made < pixels.count;) {
                const uint32_t rest = tile.columns.end - ox;
                const uint32_t some = pixels.count - made < rest ? pixels.count - made : rest;
                copy_windows(job, (int32_t)oy, (int32_t)ox, some, job->windows + made * job->taps);
                made += some;
                ox += some;
                if (ox == tile.columns.end) {
                    ox = tile.columns.begin;
                    oy++;
                }
            }
            all_outputs(job, &pixels, start, out);
            start += start != NULL ? pixels.count * outputs : 0u;
            out += pixels.count * outputs;
            left -= pixels.count;
        }
    }
}

/* Sums of the weights of each output. */
static void sum_weights(const job_t *job)
{
    const uint32_t outputs = job->p->out.c;
    for (uint32_t next = 0; next < outputs; next += MDY_LANES) {
        const uint32_t o = next + MDY_LANES <= outputs ? next : outputs - MDY_LANES;
        mdy_v4_store(job->sums + o, mdy_mve_sums(job->w + o * job->taps, job->taps, job->taps));
    }
}

static void mve_conv2d_forward(const mdy_conv_t *p, const int8_t *w, const mdy_view_t *x, const mdy_view_t *y,
                               mdy_tile_t tile, const int32_t *acc_init, mdy_workspace_t workspace)
{
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w * p->group_in;
    const uint32_t width = (uint32_t)tile.columns.end - tile.columns.begin;
    const uint32_t height = (uint32_t)tile.rows.end - tile.rows.begin;
    if (width == 0 || height == 0) {
        return;
    }
    if (!is_product(p) || p->out.c < MDY_LANES || (workspace.bytes < taps && !is_pixel(p))) {
        mdy_conv2d_forward(p, w, x, y, tile, acc_init, workspace);
        return;
    }
    job_t job = {p, w, x, taps, (int8_t *)workspace.at, NULL};
    /* Rows of a whole tensor lie side by side: pixels may go on in the next one. */
    const int is_whole = width == p->out.w && y->rows >= p->out.h;
    if (is_pixel(p)) {
        const int is_line = is_whole && x->rows >= p->in.h && p->in.w == p->out.w && p->stride_h == 1 &&
                            p->stride_w == 1;
        rows_of_pixels(&job, y, tile, is_line ? width * height : width, acc_init);
        return;
    }
    const uint32_t run = is_whole ? width * height : width;
    const uint32_t sums_bytes = p->out.c * (uint32_t)sizeof *job.sums;
    uint32_t room = workspace.bytes;
    if (room >= sums_bytes + taps) {
        job.sums = (int32_t *)(void *)workspace.at;
        job.windows += sums_bytes;
        room -= sums_bytes;
        sum_weights(&job);
    }
    rows_of_windows(&job, y, tile, run, room / taps < WINDOWS ? room / taps : WINDOWS, acc_init);
}

const mdy_weighted_op_t mdy_conv2d = {
    .forward = mve_conv2d_forward,
    .correct = mdy_mve_conv2d_correct,
    .backward_input = mdy_mve_conv2d_backward_input,
    .backward_weight = mdy_mve_conv2d_backward_weight,
    .weight_offset = mdy_conv2d_weight_offset,
};
