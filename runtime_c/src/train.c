/* SPDX-License-Identifier: Apache-2.0 */
/* Forward and backward of one layer over the planned tensors, row by row. */
#include "mdy/train.h"

#include <string.h>

#include "mdy/gradient.h"
#include "mdy/ops/activation.h"
#include "mdy/ops/add.h"
#include "mdy/ops/concat.h"
#include "mdy/ops/max_pool.h"
#include "mdy/ops/move.h"
#include "mdy/ops/mul.h"
#include "mdy/ops/pool.h"
#include "mdy/rng.h"
#include "mdy/sgd.h"

mdy_view_t mdy_view(const mdy_t *m, const mdy_tensor_t *t)
{
    const mdy_view_t view = {m->planned + t->offset, (uint32_t)t->shape.w * t->shape.c, t->shape.h, 0};
    return view;
}

mdy_view_t mdy_grad_view(const mdy_t *m, const mdy_gradient_t *g)
{
    const uint32_t row = (uint32_t)g->shape.w * g->shape.c * (uint32_t)sizeof(mdy_grad_t);
    const mdy_view_t view = {m->planned + g->offset, row, g->shape.h, 0};
    return view;
}

int mdy_go_on(mdy_t *m)
{
    if (!m->aborted && m->yield != NULL && m->yield(m->yield_context) != 0) {
        m->aborted = 1;
    }
    return !m->aborted;
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
    mdy_selected_t selected = {NULL, 0, 0, 0};
    if (layer->candidate != MDY_FROZEN) {
        const mdy_candidate_t *candidate = &m->model->candidates[layer->candidate];
        selected.records = m->epoch + m->first[layer->candidate];
        selected.record_bytes = candidate->record_bytes;
        selected.delta_bytes = candidate->delta_bytes;
        selected.count = m->count[layer->candidate];
    }
    return selected;
}

/* Sets bit i of the mask where the i-th output value is strictly inside the activation's range. */
static void keep_mask(const mdy_t *m, uint32_t mask, const mdy_tensor_t *y, int32_t low, int32_t high)
{
    const uint32_t n = (uint32_t)y->shape.h * y->shape.w * y->shape.c;
    const int8_t *values = (const int8_t *)m->planned + y->offset;
    uint8_t *bits = m->planned + mask;
    for (uint32_t i = 0; i < n; i += 8) {
        uint32_t byte = 0;
        for (uint32_t bit = 0; bit < 8 && i + bit < n; bit++) {
            const int32_t value = values[i + bit];
            byte |= (uint32_t)(low < value && value < high) << bit;
        }
        bits[i / 8] = (uint8_t)byte;
    }
}

/* Once for each gradient: here, or where it was stored. */
static void apply_mask(const mdy_t *m, uint32_t mask, const mdy_gradient_t *dy)
{
    if (mask == MDY_NONE || dy->mask != MDY_NONE) {
        return;
    }
    const uint32_t n = (uint32_t)dy->shape.h * dy->shape.w * dy->shape.c;
    mdy_grad_t *values = (mdy_grad_t *)(void *)(m->planned + dy->offset);
    const uint8_t *bits = m->planned + mask;
    for (uint32_t i = 0; i < n; i++) {
        if ((bits[i / 8] >> (i % 8) & 1u) == 0) {
            values[i] = 0;
        }
    }
}

/* Whether no gradient goes on through a node: nothing in front of it is trained, or the step was aborted. */
static int stops_at(const mdy_t *m, uint16_t order)
{
    return order <= m->deepest || m->aborted;
}

static int keeps_mask(const mdy_t *m, uint32_t mask, uint16_t order)
{
    return m->training && mask != MDY_NONE && order >= m->deepest;
}

static void gather(const mdy_t *m, const mdy_selected_t *selected, const mdy_tensor_t *x)
{
    const uint32_t pixels = (uint32_t)x->shape.h * x->shape.w;
    const int8_t *values = (const int8_t *)m->planned + x->offset;
    for (uint32_t slot = 0; slot < selected->count; slot++) {
        uint8_t *record = mdy_record(selected, slot);
        int8_t *map = mdy_record_map(selected, record);
        const int8_t *value = values + mdy_record_channel(record);
        for (uint32_t i = 0; i < pixels; i++) {
            map[i] = value[i * x->shape.c];
        }
    }
}

void mdy_run_layer(mdy_t *m, const mdy_layer_t *layer, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int8_t *weights = mdy_layer_weights(m, layer);
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    int32_t *acc_init = NULL;
    if (selected.count > 0) {
        acc_init = (int32_t *)(void *)(m->planned + layer->scratch);
        if (m->training) {
            gather(m, &selected, x);
        }
    }
    for (uint16_t oy = 0; oy < y->shape.h && mdy_go_on(m); oy++) {
        const mdy_band_t row = {oy, (uint16_t)(oy + 1)};
        if (acc_init != NULL) {
            layer->op->correct(layer->p, &selected, &x_view, oy, acc_init);
        }
        layer->op->forward(layer->p, weights, &x_view, &y_view, row, acc_init);
    }
    if (keeps_mask(m, layer->mask, layer->order)) {
        keep_mask(m, layer->mask, y, layer->p->act_min, layer->p->act_max);
    }
}

void mdy_back_layer(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy,
                    const mdy_gradient_t *dx, const mdy_joins_t *joins)
{
    if (layer->order < m->deepest || m->aborted) {
        return;
    }
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int8_t *weights = mdy_layer_weights(m, layer);
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const int exponent = m->slot_e[dy->slot];
    apply_mask(m, layer->mask, dy);
    if (dx != NULL && layer->order > m->deepest) {
        mdy_sink_t sink;
        mdy_sink_open(&sink, m, dx, joins, layer->scratch_back, exponent + layer->p->grad_exponent);
        for (uint16_t iy = 0; iy < dx->shape.h && mdy_go_on(m); iy++) {
            const mdy_band_t row = {iy, (uint16_t)(iy + 1)};
            layer->op->backward_input(layer->p, weights, &selected, &dy_view, row, &sink);
        }
        mdy_sink_close(&sink);
    }
    if (selected.count > 0 && !m->aborted) { /* last: backward_input reads the weights before this step */
        mdy_update_t update = {
            .m = m,
            .layer = layer,
            .selected = &selected,
            .weights = weights,
            .scratch = (mdy_wacc_t *)(void *)(m->planned + layer->scratch_back),
            .key = mdy_rng_key(m->seed, MDY_RNG_ROUNDING, m->steps, layer->order),
            .exponent = exponent,
        };
        const mdy_band_t rows = {0, dy->shape.h};
        layer->op->backward_weight(layer->p, &selected, &dy_view, rows, &update);
    }
}

void mdy_run_add(mdy_t *m, const mdy_add_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y)
{
    const mdy_view_t a_view = mdy_view(m, a);
    const mdy_view_t b_view = mdy_view(m, b);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = 0; row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_add_forward(p, &a_view, &b_view, &y_view, band);
    }
    if (keeps_mask(m, p->mask, p->order)) {
        keep_mask(m, p->mask, y, p->act_min, p->act_max);
    }
}

static void copy_gradient(const mdy_t *m, const mdy_gradient_t *from, const mdy_gradient_t *to)
{
    if (to != NULL && to->offset != from->offset) {
        const uint32_t n = (uint32_t)from->shape.h * from->shape.w * from->shape.c;
        memcpy(m->planned + to->offset, m->planned + from->offset, n * sizeof(mdy_grad_t));
    }
}

void mdy_back_add(mdy_t *m, const mdy_add_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *da,
                  const mdy_gradient_t *db)
{
    if (stops_at(m, p->order)) {
        return;
    }
    apply_mask(m, p->mask, dy);
    copy_gradient(m, dy, da);
    copy_gradient(m, dy, db);
}

void mdy_run_pool(mdy_t *m, const mdy_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = 0; row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_pool_forward(p, x->shape, &x_view, y->shape, &y_view, band);
    }
}

void mdy_back_pool(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    const mdy_band_t rows = {0, dx->shape.h};
    mdy_pool_backward(p, dy->shape, &dy_view, dx->shape, &dx_view, rows);
}

void mdy_run_mul(mdy_t *m, const mdy_mul_t *p, const mdy_tensor_t *a, const mdy_tensor_t *b,
                 const mdy_tensor_t *y)
{
    const mdy_view_t a_view = mdy_view(m, a);
    const mdy_view_t b_view = mdy_view(m, b);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = 0; row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_mul_forward(p, &a_view, b->shape, &b_view, y->shape, &y_view, band);
    }
    if (keeps_mask(m, p->mask, p->order)) {
        keep_mask(m, p->mask, y, p->act_min, p->act_max);
    }
}

void mdy_run_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = 0; row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_max_pool_forward(p, x->shape, &x_view, y->shape, &y_view, band);
    }
}

void mdy_run_activation(mdy_t *m, const mdy_activation_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    mdy_activation_forward(p, (const int8_t *)m->planned + x->offset, (int8_t *)m->planned + y->offset,
                           mdy_tensor_bytes(x));
}

void mdy_back_activation(mdy_t *m, const mdy_activation_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                         const mdy_gradient_t *dx)
{
    (void)dx; /* the same buffer */
    if (stops_at(m, p->order)) {
        return;
    }
    mdy_activation_backward(p, (const int8_t *)m->planned + x->offset,
                            (mdy_grad_t *)(void *)(m->planned + dy->offset), mdy_tensor_bytes(x));
}

void mdy_run_move(mdy_t *m, const mdy_move_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    for (uint16_t row = 0; row < y->shape.h && mdy_go_on(m); row++) {
        const mdy_band_t band = {row, (uint16_t)(row + 1)};
        mdy_move_forward(p, x->shape, &x_view, y->shape, &y_view, band);
    }
}

void mdy_back_move(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    mdy_move_backward(p, dy->shape, &dy_view, dx->shape, &dx_view);
}

void mdy_run_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_tensor_t *x,
                    const mdy_tensor_t *y)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    mdy_concat_forward(p, index, x->shape, &x_view, y->shape, &y_view);
}

void mdy_back_concat(mdy_t *m, const mdy_concat_t *p, uint32_t index, const mdy_gradient_t *dy,
                     const mdy_gradient_t *dx)
{
    if (p->order <= m->deepest || m->aborted || dx == NULL) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    mdy_concat_backward(p, index, dy->shape, &dy_view, dx->shape, &dx_view);
}

void mdy_run_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    (void)p;
    memcpy(m->planned + y->offset, m->planned + x->offset, mdy_tensor_bytes(x));
}

void mdy_back_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (stops_at(m, p->order)) {
        return;
    }
    copy_gradient(m, dy, dx);
}

void mdy_run_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y)
{
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    const uint32_t row = (uint32_t)x->shape.w * x->shape.c;
    for (uint16_t iy = 0; iy < x->shape.h && mdy_go_on(m); iy++) {
        for (uint32_t i = 0; i < row; i += x->shape.c) {
            mdy_softmax_forward(p, mdy_row(&x_view, iy) + i, mdy_row(&y_view, iy) + i, x->shape.c);
        }
    }
}

void mdy_back_softmax(mdy_t *m, const mdy_softmax_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *y,
                      const mdy_gradient_t *dx, const mdy_joins_t *joins)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t y_view = mdy_view(m, y);
    const uint32_t channels = dy->shape.c;
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] + MDY_SOFTMAX_SHIFT);
    for (uint16_t iy = 0; iy < dx->shape.h && mdy_go_on(m); iy++) {
        for (uint16_t ix = 0; ix < dx->shape.w; ix++) {
            const uint32_t first = ix * channels;
            mdy_softmax_gather(mdy_grad_row(&dy_view, iy) + first, mdy_row(&y_view, iy) + first, channels,
                               mdy_sink_begin(&sink));
            mdy_sink_end(&sink, iy, ix);
        }
    }
    mdy_sink_close(&sink);
}

/* One input's gradient of a product: pixel by pixel, or one sum over all pixels for each channel. */
static void back_factor(mdy_t *m, const mdy_mul_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                        const mdy_tensor_t *other, int32_t zero, const mdy_joins_t *joins)
{
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t view = mdy_view(m, other);
    const uint32_t channels = dy->shape.c;
    const int summed = dx->shape.h != dy->shape.h || dx->shape.w != dy->shape.w;
    const int broadcast = other->shape.h != dy->shape.h || other->shape.w != dy->shape.w;
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] + MDY_MUL_SHIFT);
    int32_t *acc = summed ? mdy_sink_begin(&sink) : NULL;
    for (uint16_t y = 0; y < dy->shape.h && mdy_go_on(m); y++) {
        for (uint16_t x = 0; x < dy->shape.w; x++) {
            const int8_t *values = mdy_row(&view, broadcast ? 0 : y) + (broadcast ? 0 : x * channels);
            acc = summed ? acc : mdy_sink_begin(&sink);
            mdy_mul_gather(mdy_grad_row(&dy_view, y) + x * channels, values, zero, channels, acc);
            if (!summed) {
                mdy_sink_end(&sink, y, x);
            }
        }
    }
    if (summed) {
        mdy_sink_end(&sink, 0, 0);
    }
    mdy_sink_close(&sink);
}

void mdy_back_mul(mdy_t *m, const mdy_mul_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *a,
                  const mdy_tensor_t *b, const mdy_gradient_t *da, const mdy_gradient_t *db,
                  const mdy_joins_t *a_joins, const mdy_joins_t *b_joins)
{
    if (stops_at(m, p->order)) {
        return;
    }
    apply_mask(m, p->mask, dy);
    if (da != NULL) {
        back_factor(m, p, dy, da, b, p->b_zero, a_joins);
    }
    if (db != NULL) {
        back_factor(m, p, dy, db, a, p->a_zero, b_joins);
    }
}

void mdy_back_pool_sum(mdy_t *m, const mdy_pool_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] - mdy_pool_bits(p));
    for (uint16_t y = 0; y < dx->shape.h && mdy_go_on(m); y++) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            mdy_pool_gather(p, dx->shape, dy->shape, &dy_view, y, x, mdy_sink_begin(&sink));
            mdy_sink_end(&sink, y, x);
        }
    }
    mdy_sink_close(&sink);
}

void mdy_back_max_pool(mdy_t *m, const mdy_max_pool_t *p, const mdy_gradient_t *dy, const mdy_tensor_t *x,
                       const mdy_gradient_t *dx, const mdy_joins_t *joins)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t x_view = mdy_view(m, x);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot]);
    for (uint16_t iy = 0; iy < dx->shape.h && mdy_go_on(m); iy++) {
        for (uint16_t ix = 0; ix < dx->shape.w; ix++) {
            mdy_max_pool_gather(p, x->shape, &x_view, dy->shape, &dy_view, iy, ix, mdy_sink_begin(&sink));
            mdy_sink_end(&sink, iy, ix);
        }
    }
    mdy_sink_close(&sink);
}

void mdy_back_enlarged(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                       const mdy_joins_t *joins)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot]);
    for (uint16_t y = 0; y < dx->shape.h && mdy_go_on(m); y++) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            mdy_move_gather(p, dy->shape, &dy_view, y, x, mdy_sink_begin(&sink));
            mdy_sink_end(&sink, y, x);
        }
    }
    mdy_sink_close(&sink);
}

/* The finest exponent at which every joined gradient still fits 30 bits. */
static int sum_exponent(const mdy_t *m, const mdy_joins_t *joins)
{
    int highest = INT16_MIN;
    for (uint32_t j = 0; j < joins->count; j++) {
        const mdy_join_t *join = &joins->joins[j];
        const int exponent = m->slot_e[join->gradient->slot] + join->exponent;
        highest = exponent > highest ? exponent : highest;
    }
    return highest + MDY_GRAD_BITS - 1 + 15 - 28;
}

void mdy_back_sum(mdy_t *m, uint16_t order, const mdy_gradient_t *dx, const mdy_joins_t *joins,
                  uint32_t scratch)
{
    if (stops_at(m, order)) {
        return;
    }
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, scratch, sum_exponent(m, joins));
    for (uint16_t y = 0; y < dx->shape.h && mdy_go_on(m); y++) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            (void)mdy_sink_begin(&sink);
            mdy_sink_end(&sink, y, x);
        }
    }
    mdy_sink_close(&sink);
}
