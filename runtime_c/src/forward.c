/* SPDX-License-Identifier: Apache-2.0 */
/* Forward over the planned tensors, row by row: whole tensors, or the rows that a stream asks for. */
#include <string.h>

#include "mdy/ops/activation.h"
#include "mdy/ops/add.h"
#include "mdy/ops/concat.h"
#include "mdy/ops/max_pool.h"
#include "mdy/ops/move.h"
#include "mdy/ops/mul.h"
#include "mdy/ops/pool.h"
#include "mdy/train.h"

mdy_view_t mdy_view(const mdy_t *m, const mdy_tensor_t *t)
{
    const mdy_view_t view = {m->planned + t->offset, (uint32_t)t->shape.w * t->shape.c, t->rows, 0};
    return view;
}

uint8_t *mdy_mask_row(const mdy_t *m, const mdy_mask_t *mask, mdy_shape_t shape, int32_t row)
{
    const uint32_t row_bytes = ((uint32_t)shape.w * shape.c + 7u) / 8u;
    return m->planned + mask->offset + (uint32_t)row % mask->rows * row_bytes;
}

int mdy_go_on(mdy_t *m)
{
    if (!m->aborted && m->yield != NULL && m->yield(m->yield_context) != 0) {
        m->aborted = 1;
    }
    return !m->aborted;
}

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

const int8_t *mdy_layer_weights(const mdy_t *m, const mdy_layer_t *layer)
{
    if (layer->candidate == MDY_FROZEN || m->weights == NULL) {
        return layer->weight;
    }
    return (const int8_t *)m->weights + m->model->candidates[layer->candidate].bank_offset;
}

mdy_selected_t mdy_layer_selected(const mdy_t *m, const mdy_layer_t *layer)
{
    mdy_selected_t selected = {NULL, 0, 0, 0, layer->p->bias};
    if (layer->bias != MDY_FROZEN) {
        selected.bias = m->biases + m->model->biases[layer->bias].first;
    }
    if (layer->candidate != MDY_FROZEN) {
        const mdy_candidate_t *candidate = &m->model->candidates[layer->candidate];
        selected.records = m->epoch + m->first[layer->candidate];
        selected.record_bytes = candidate->record_bytes;
        selected.delta_bytes = candidate->delta_bytes;
        selected.count = m->count[layer->candidate];
    }
    return selected;
}

/* The range of an activation; a value strictly inside passes gradients. */
typedef struct {
    int32_t low, high;
} range_t;

/* Sets bit i of the row's mask where its i-th value is inside. */
static void keep_mask(const mdy_t *m, const mdy_mask_t *mask, uint16_t order, const mdy_tensor_t *y,
                      uint16_t row, range_t range)
{
    if (!m->training || mask->offset == MDY_NONE || order < m->deepest) {
        return;
    }
    const mdy_view_t view = mdy_view(m, y);
    const uint32_t n = view.row_bytes;
    const int8_t *values = mdy_row(&view, row);
    uint8_t *bits = mdy_mask_row(m, mask, y->shape, row);
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t byte = 0;
        for (uint32_t bit = 0; bit < 8 && i + bit < n; bit++) {
            const int32_t value = values[i + bit];
            byte |= (uint32_t)(range.low < value && value < range.high) << bit;
        }
        bits[i / 8] = (uint8_t)byte;
    }
}

void mdy_run_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_tensor_t *y, int16_t low,
                  int16_t high, mdy_band_t rows)
{
    const range_t range = {low, high};
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        keep_mask(m, mask, order, y, row, range);
    }
}

/* One past the last input row that output rows up to `oy` read; all of them at the last one. */
static int32_t rows_read(const mdy_conv_t *p, int32_t oy)
{
    const int32_t end = oy * p->stride_h - p->pad_top + (p->kernel_h - 1) * p->dilation_h + 1;
    return oy < 0 ? 0 : end > p->in.h || oy + 1 >= p->out.h ? p->in.h : end < 0 ? 0 : end;
}

/* Saves the selected channels of the input rows that output row `oy` is the first to read. */
static void gather(const mdy_selected_t *selected, const mdy_conv_t *p, const mdy_view_t *x, int32_t oy)
{
    for (int32_t iy = rows_read(p, oy - 1); iy < rows_read(p, oy); iy++) {
        const int8_t *values = mdy_row(x, iy);
        for (uint32_t slot = 0; slot < selected->count; slot++) {
            uint8_t *record = mdy_record(selected, slot);
            int8_t *map = mdy_record_map(selected, record) + iy * p->in.w;
            const int8_t *value = values + mdy_record_channel(record);
            for (uint32_t i = 0; i < p->in.w; i++) {
                map[i] = value[i * p->in.c];
            }
        }
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
    for (uint16_t row = rows.begin; row < rows.end && row < x->shape.h && mdy_go_on(m); row++) {
        int8_t *values = mdy_row(&view, row);
        if (x->rows < x->shape.h && m->load(m->load_context, row, values) != 0) {
            m->aborted = 1;
            return;
        }
        if (m->flipped) {
            flip(values, x->shape.w, x->shape.c);
        }
    }
}

/* A row with the deltas' correction, a few pixels at a time: acc_init has room for those. */
static void run_corrected(const mdy_layer_t *layer, const int8_t *weights, const mdy_selected_t *selected,
                          const mdy_view_t *x, const mdy_view_t *y, mdy_band_t row, int32_t *acc_init)
{
    const uint32_t width = layer->p->out.w;
    for (uint32_t ox = 0; ox < width; ox += MDY_TILE) {
        const uint32_t end = ox + MDY_TILE < width ? ox + MDY_TILE : width;
        const mdy_tile_t tile = {row, {(uint16_t)ox, (uint16_t)end}};
        layer->op->correct(layer->p, selected, x, tile, acc_init);
        layer->op->forward(layer->p, weights, x, y, tile, acc_init);
    }
}

void mdy_run_layer(mdy_t *m, const mdy_layer_t *layer, const mdy_tensor_t *x, const mdy_tensor_t *y,
                   mdy_band_t rows)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int8_t *weights = mdy_layer_weights(m, layer);
    const mdy_conv_t *p = layer->p;
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    const range_t range = {p->act_min, p->act_max};
    for (uint16_t oy = rows.begin; oy < rows.end && oy < y->shape.h && mdy_go_on(m); oy++) {
        const mdy_tile_t row = {{oy, (uint16_t)(oy + 1)}, {0, p->out.w}};
        if (selected.count == 0 && layer->bias == MDY_FROZEN) {
            layer->op->forward(p, weights, &x_view, &y_view, row, NULL);
        } else {
            int32_t *acc_init = (int32_t *)(void *)(m->planned + layer->scratch);
            if (m->training == MDY_FORWARD) {
                gather(&selected, p, &x_view, oy);
            }
            run_corrected(layer, weights, &selected, &x_view, &y_view, row.rows, acc_init);
        }
        keep_mask(m, &layer->mask, layer->order, y, oy, range);
    }
}

void mdy_run_add(mdy_t *m, const mdy_add_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t a_view = mdy_view(m, a);
    const mdy_view_t b_view = mdy_view(m, b);
    const mdy_view_t y_view = mdy_view(m, y);
    const range_t range = {p->act_min, p->act_max};
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_add_forward(p, &a_view, &b_view, &y_view, band);
        keep_mask(m, &p->mask, p->order, y, row, range);
    }
}

void mdy_run_mul(mdy_t *m, const mdy_mul_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t a_view = mdy_view(m, a);
    const mdy_view_t b_view = mdy_view(m, b);
    const mdy_view_t y_view = mdy_view(m, y);
    const range_t range = {p->act_min, p->act_max};
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_mul_forward(p, &a_view, b->shape, &b_view, y->shape, &y_view, band);
        keep_mask(m, &p->mask, p->order, y, row, range);
    }
}

void mdy_run_pool(mdy_t *m, const mdy_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                  mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_pool_forward(p, x->shape, &x_view, y->shape, &y_view, band);
    }
}

void mdy_run_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                      mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_max_pool_forward(p, x->shape, &x_view, y->shape, &y_view, band);
    }
}

void mdy_run_activation(mdy_t *m, const mdy_activation_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                        mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        mdy_activation_forward(p, mdy_row(&x_view, row), mdy_row(&y_view, row), x_view.row_bytes);
    }
}

void mdy_run_move(mdy_t *m, const mdy_move_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                  mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = rows.begin; row < rows.end && row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_move_forward(p, x->shape, &x_view, y->shape, &y_view, band);
    }
}

void mdy_run_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_tensor_t *x,
                    const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    mdy_concat_forward(p, index, x->shape, &x_view, y->shape, &y_view, rows);
}

void mdy_run_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                     mdy_band_t rows)
{
    (void)p;
    (void)rows; /* all at once: the rows of one are not the rows of the other */
    memmove(m->planned + y->offset, m->planned + x->offset, mdy_tensor_bytes(x));
}

void mdy_run_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y,
                     mdy_band_t rows)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t iy = rows.begin; iy < rows.end && iy < y->shape.h && mdy_go_on(m); iy++) {
        for (uint32_t i = 0; i < x_view.row_bytes; i += x->shape.c) {
            mdy_softmax_forward(p, mdy_row(&x_view, iy) + i, mdy_row(&y_view, iy) + i, x->shape.c);
        }
    }
}
