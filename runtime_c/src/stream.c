/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/stream.h"

#include <string.h>

#include "mdy/view.h"

void mdy_stream(mdy_t *m, mdy_stages_t *stages, const uint8_t *order, uint32_t count)
{
    uint16_t next[MDY_STAGES_MAX] = {0};
    for (uint32_t i = 0; i < count && !m->aborted; i++) {
        const uint32_t stage = order[i];
        const mdy_band_t row = {next[stage], (uint16_t)(next[stage] + 1)};
        stages(m, stage, row);
        next[stage]++;
    }
}

static void flip(int8_t *row, uint32_t width, uint32_t channels)
{
    for (uint32_t x = 0; x < width / 2; x++) {
        for (uint32_t c = 0; c < channels; c++) {
            int8_t *left = row + x * channels + c;
            int8_t *right = row + (width - 1 - x) * channels + c;
            const int8_t swap = *left;
            *left = *right;
            *right = swap;
        }
    }
}

/* Moves `count` parts of `bytes` each to later places by `by` of them, or to earlier ones; what is left is `fill`. */
static void move(int8_t *parts, uint32_t count, uint32_t bytes, int32_t by, int16_t fill)
{
    const uint32_t distance = (uint32_t)(by < 0 ? -by : by) * bytes;
    const uint32_t kept = count * bytes - distance;
    if (by > 0) {
        memmove(parts + distance, parts, kept);
        memset(parts, fill, distance);
    } else if (by < 0) {
        memmove(parts, parts + distance, kept);
        memset(parts + kept, fill, distance);
    }
}

/* Row `row` of a moved sample from the load hook: rows above it that are not needed are asked for and dropped. */
static void fetch(mdy_t *m, const mdy_tensor_t *x, uint16_t row, int8_t *values)
{
    const int32_t source = row - m->down;
    const int32_t first = row == 0 && source > 0 ? 0 : source;
    if (source < 0 || source >= x->shape.h) {
        memset(values, m->model->input_zero, (uint32_t)x->shape.w * x->shape.c);
        return;
    }
    for (int32_t asked = first; asked <= source && !m->aborted; asked++) {
        m->aborted = m->load(m->load_context, (uint16_t)asked, values) != 0;
    }
}

void mdy_load(mdy_t *m, const mdy_tensor_t *x, mdy_band_t rows)
{
    const mdy_view_t view = mdy_view(m, x);
    const int by_rows = x->rows < x->shape.h;
    if (!by_rows) {
        move(mdy_row(&view, 0), x->shape.h, view.row_bytes, m->down, m->model->input_zero);
    }
    for (mdy_rows_t walk = mdy_rows(m, x->shape.h, rows); mdy_next_row(&walk);) {
        int8_t *values = mdy_row(&view, walk.row);
        if (by_rows) {
            fetch(m, x, walk.row, values);
        }
        if (m->aborted) {
            return;
        }
        if (m->flipped) {
            flip(values, x->shape.w, x->shape.c);
        }
        move(values, x->shape.w, x->shape.c, m->right, m->model->input_zero);
    }
}

void mdy_run_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_tensor_t *y, int16_t low, int16_t high,
                  mdy_band_t rows)
{
    const mdy_range_t range = {low, high};
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_keep_mask(m, mask, order, y, walk.row, range);
    }
}
