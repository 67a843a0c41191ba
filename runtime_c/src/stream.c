/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/stream.h"

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

void mdy_load(mdy_t *m, const mdy_tensor_t *x, mdy_band_t rows)
{
    const mdy_view_t view = mdy_view(m, x);
    for (mdy_rows_t walk = mdy_rows(m, x->shape.h, rows); mdy_next_row(&walk);) {
        int8_t *values = mdy_row(&view, walk.row);
        if (x->rows < x->shape.h && m->load(m->load_context, walk.row, values) != 0) {
            m->aborted = 1;
            return;
        }
        if (m->flipped) {
            flip(values, x->shape.w, x->shape.c);
        }
    }
}

void mdy_run_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_tensor_t *y, int16_t low,
                  int16_t high, mdy_band_t rows)
{
    const mdy_range_t range = {low, high};
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_row(&walk);) {
        mdy_keep_mask(m, mask, order, y, walk.row, range);
    }
}
