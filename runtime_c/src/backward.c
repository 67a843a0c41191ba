/* SPDX-License-Identifier: Apache-2.0 */
/* Backward over the planned gradients: rows of a layer's passes, whole tensors of what is rarer. */
#include <string.h>

#include "mdy/gradient.h"
#include "mdy/ops/activation.h"
#include "mdy/ops/concat.h"
#include "mdy/ops/max_pool.h"
#include "mdy/ops/move.h"
#include "mdy/ops/mul.h"
#include "mdy/ops/pool.h"
#include "mdy/rng.h"
#include "mdy/sgd.h"
#include "mdy/train.h"

mdy_view_t mdy_grad_view(const mdy_t *m, const mdy_gradient_t *g)
{
    const uint32_t row = (uint32_t)g->shape.w * g->shape.c * (uint32_t)sizeof(mdy_grad_t);
    const mdy_view_t view = {m->planned + g->offset, row, g->rows, 0};
    return view;
}

static uint32_t gradient_bytes(const mdy_gradient_t *g)
{
    return (uint32_t)g->shape.h * g->shape.w * g->shape.c * (uint32_t)sizeof(mdy_grad_t);
}

/* Whether no gradient goes on through a node: nothing in front of it is trained, or the step was aborted. */
static int stops_at(const mdy_t *m, uint16_t order)
{
    return order <= m->deepest || m->aborted;
}

void mdy_back_mask(mdy_t *m, uint16_t order, const mdy_mask_t *mask, const mdy_gradient_t *dy, mdy_band_t rows)
{
    const mdy_view_t view = mdy_grad_view(m, dy);
    const uint32_t n = (uint32_t)dy->shape.w * dy->shape.c;
    for (uint16_t row = rows.begin; row < rows.end && row < dy->shape.h; row++) {
        if (order < m->deepest || m->aborted) {
            return;
        }
        mdy_grad_t *values = mdy_grad_row(&view, row);
        const uint8_t *bits = mdy_mask_row(m, mask, dy->shape, row);
        for (uint32_t i = 0; i < n; i++) {
            if ((bits[i / 8] >> (i % 8) & 1u) == 0) {
                values[i] = 0;
            }
        }
    }
}

void mdy_back_copy(mdy_t *m, uint16_t order, const mdy_gradient_t *dy, const mdy_gradient_t *dx, mdy_band_t rows)
{
    const mdy_view_t from = mdy_grad_view(m, dy);
    const mdy_view_t to = mdy_grad_view(m, dx);
    for (uint16_t row = rows.begin; row < rows.end && row < dy->shape.h && !stops_at(m, order); row++) {
        memcpy(mdy_grad_row(&to, row), mdy_grad_row(&from, row), from.row_bytes);
    }
}

void mdy_back_input(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                    const mdy_joins_t *joins, mdy_band_t rows)
{
    if (stops_at(m, layer->order)) {
        return;
    }
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int8_t *weights = mdy_layer_weights(m, layer);
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, layer->scratch_back, m->slot_e[dy->slot] + layer->p->grad_exponent,
                  rows.begin);
    for (uint16_t iy = rows.begin; iy < rows.end && iy < dx->shape.h && mdy_go_on(m); iy++) {
        const mdy_band_t row = {iy, (uint16_t)(iy + 1)};
        layer->op->backward_input(layer->p, weights, &selected, &dy_view, row, &sink);
    }
    mdy_sink_close(&sink);
}

mdy_wacc_t *mdy_update_begin(mdy_update_t *u, uint32_t slot, uint32_t tap)
{
    const mdy_conv_t *p = u->layer->p;
    if (u->by_rows) {
        return u->sums + (slot * p->kernel_h * p->kernel_w + tap) * p->group_out;
    }
    memset(u->sums, 0, p->group_out * sizeof *u->sums);
    return u->sums;
}

void mdy_update_end(mdy_update_t *u, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    if (!u->by_rows) {
        mdy_update_tap(u, slot, tap, sums);
    }
}

/* Whether this step trains the biases of a layer. */
static int learns_biases(const mdy_t *m, const mdy_layer_t *layer)
{
    return layer->bias != MDY_FROZEN && !m->head_only;
}

/* Adds what rows of dy contribute to the gradients of a layer's biases, out.c of them. */
static void add_biases(const mdy_gradient_t *dy, const mdy_view_t *view, mdy_band_t rows, mdy_wacc_t *sums)
{
    for (uint16_t y = rows.begin; y < rows.end && y < dy->shape.h; y++) {
        const mdy_grad_t *values = mdy_grad_row(view, y);
        for (uint32_t x = 0; x < dy->shape.w; x++, values += dy->shape.c) {
            for (uint32_t o = 0; o < dy->shape.c; o++) {
                sums[o] += values[o];
            }
        }
    }
}

/* What takes a layer's gradients; `sums` is an offset in the planned region: biases come first, then weights. */
static mdy_update_t update_of(mdy_t *m, const mdy_layer_t *layer, const mdy_selected_t *selected,
                              const mdy_gradient_t *dy, uint32_t sums)
{
    const mdy_update_t update = {
        .m = m,
        .layer = layer,
        .selected = selected,
        .weights = mdy_layer_weights(m, layer),
        .sums = (mdy_wacc_t *)(void *)(m->planned + (sums == MDY_NONE ? layer->scratch_update : sums)),
        .by_rows = sums != MDY_NONE,
        .key = mdy_rng_key(m->seed, MDY_RNG_ROUNDING, m->steps, layer->order),
        .exponent = m->slot_e[dy->slot],
        .rate_mult = m->rate_mult,
        .rate_exponent = m->rate_exponent,
    };
    return update;
}

void mdy_back_weights(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums,
                      mdy_band_t rows)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const uint32_t biases = learns_biases(m, layer) ? layer->p->out.c : 0;
    if (selected.count + biases == 0 || m->aborted) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    mdy_update_t update = update_of(m, layer, &selected, dy, sums);
    if (rows.begin == 0) {
        memset(update.sums, 0, (biases + selected.count * selected.delta_bytes) * sizeof *update.sums);
    }
    if (biases > 0) {
        add_biases(dy, &dy_view, rows, update.sums);
        update.sums += biases;
    }
    if (selected.count > 0) {
        layer->op->backward_weight(layer->p, &selected, &dy_view, rows, &update);
    }
}

/* Updates a layer's biases from the sums of mdy_back_weights, or from the whole of dy. */
static void update_biases(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    mdy_update_t update = update_of(m, layer, &selected, dy, sums);
    if (!update.by_rows) {
        const mdy_view_t dy_view = mdy_grad_view(m, dy);
        const mdy_band_t all = {0, dy->shape.h};
        memset(update.sums, 0, dy->shape.c * sizeof *update.sums);
        add_biases(dy, &dy_view, all, update.sums);
    }
    const mdy_biases_t *biases = &m->model->biases[layer->bias];
    update.key = mdy_rng_key(m->seed, MDY_RNG_BIASES, m->steps, layer->order);
    mdy_update_biases(&update, biases, m->biases + biases->first);
}

/* Goes over the sums of every tap: those that came by rows, or new ones. */
static void every_tap(mdy_update_t *update, const mdy_gradient_t *dy, uint8_t does)
{
    const mdy_conv_t *p = update->layer->p;
    update->does = does;
    if (!update->by_rows) {
        const mdy_view_t dy_view = mdy_grad_view(update->m, dy);
        const mdy_band_t all = {0, dy->shape.h};
        update->layer->op->backward_weight(p, update->selected, &dy_view, all, update);
        return;
    }
    for (uint32_t slot = 0; slot < update->selected->count; slot++) {
        for (uint32_t tap = 0; tap < (uint32_t)p->kernel_h * p->kernel_w; tap++) {
            mdy_update_tap(update, slot, tap, mdy_update_begin(update, slot, tap));
        }
    }
}

void mdy_back_update(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int biases = learns_biases(m, layer);
    if (biases && !m->aborted) {
        update_biases(m, layer, dy, sums);
    }
    if (selected.count == 0 || m->aborted) {
        return;
    }
    mdy_update_t update = update_of(m, layer, &selected, dy, sums);
    update.sums += biases && update.by_rows ? layer->p->out.c : 0;
    if (m->model->batch_log2 > 0) {
        every_tap(&update, dy, MDY_MEASURE | MDY_ADD);
        return;
    }
    if (m->schedule.clip == 0) {
        every_tap(&update, dy, MDY_MEASURE | MDY_APPLY);
        return;
    }
    every_tap(&update, dy, MDY_MEASURE);
    mdy_update_clip(&update);
    every_tap(&update, dy, MDY_APPLY);
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

void mdy_back_move(mdy_t *m, const mdy_move_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (stops_at(m, p->order)) {
        return;
    }
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_view_t dx_view = mdy_grad_view(m, dx);
    mdy_move_backward(p, dy->shape, &dy_view, dx->shape, &dx_view);
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

void mdy_back_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (stops_at(m, p->order)) {
        return;
    }
    memmove(m->planned + dx->offset, m->planned + dy->offset, gradient_bytes(dy));
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
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] + MDY_SOFTMAX_SHIFT, 0);
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
    const int shift = mdy_mul_shift(summed ? (uint32_t)dy->shape.h * dy->shape.w : 1);
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] + shift, 0);
    int32_t *acc = summed ? mdy_sink_begin(&sink) : NULL;
    for (uint16_t y = 0; y < dy->shape.h && mdy_go_on(m); y++) {
        for (uint16_t x = 0; x < dy->shape.w; x++) {
            const int8_t *values = mdy_row(&view, broadcast ? 0 : y) + (broadcast ? 0 : x * channels);
            acc = summed ? acc : mdy_sink_begin(&sink);
            mdy_mul_gather(mdy_grad_row(&dy_view, y) + x * channels, values, zero, channels, shift, acc);
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
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot] - mdy_pool_bits(p), 0);
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
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot], 0);
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
    mdy_sink_open(&sink, m, dx, joins, p->scratch, m->slot_e[dy->slot], 0);
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
    mdy_sink_open(&sink, m, dx, joins, scratch, sum_exponent(m, joins), 0);
    for (uint16_t y = 0; y < dx->shape.h && mdy_go_on(m); y++) {
        for (uint16_t x = 0; x < dx->shape.w; x++) {
            (void)mdy_sink_begin(&sink);
            mdy_sink_end(&sink, y, x);
        }
    }
    mdy_sink_close(&sink);
}
