/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a weighted layer: forward with deltas, the gradient of its input, the update of its selected channels. */
#include "mdy/layer.h"

#include <string.h>

#include "mdy/gradient.h"
#include "mdy/rng.h"
#include "mdy/update.h"
#include "mdy/view.h"

/* Bytes of a workspace that a kernel which makes weight gradients is left, when their sums go there, too. */
#define KERNEL_SHARE 1024u

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

static mdy_workspace_t workspace_of(const mdy_t *m, const mdy_layer_t *layer)
{
    const mdy_workspace_t workspace = {m->planned + layer->workspace, layer->workspace_bytes};
    return workspace;
}

/* Where what deltas add goes, and what of the workspace is left for the kernel. */
typedef struct {
    int32_t *acc_init;
    uint16_t rows; /* of the output that have room there */
    mdy_workspace_t workspace;
} correction_t;

/* Rows of fewer than MDY_TILE pixels are made several at once where the workspace has room: the scratch is for one. */
static correction_t correction_of(const mdy_t *m, const mdy_layer_t *layer)
{
    const uint32_t narrow = MDY_TILE / layer->p->out.w;
    const uint32_t rows = narrow < layer->p->out.h ? narrow : layer->p->out.h;
    const uint32_t bytes = (MDY_TILE * layer->p->out.c * (uint32_t)sizeof(int32_t) + 7u) & ~7u;
    correction_t correction = {(int32_t *)(void *)(m->planned + layer->scratch), 1, workspace_of(m, layer)};
    if (rows > 1 && layer->band > 1 && correction.workspace.bytes >= 2 * bytes) {
        correction.acc_init = (int32_t *)(void *)correction.workspace.at;
        correction.rows = (uint16_t)(rows < layer->band ? rows : layer->band);
        correction.workspace.at += bytes;
        correction.workspace.bytes -= bytes;
    }
    return correction;
}

/* Some rows with the deltas' correction, a few pixels at a time. */
static void run_corrected(mdy_t *m, const mdy_layer_t *layer, const mdy_selected_t *selected, const mdy_view_t *x,
                          const mdy_view_t *y, mdy_band_t rows)
{
    const correction_t correction = correction_of(m, layer);
    const int8_t *weights = mdy_layer_weights(m, layer);
    const uint32_t width = layer->p->out.w;
    for (uint32_t ox = 0; ox < width; ox += MDY_TILE) {
        const uint32_t end = ox + MDY_TILE < width ? ox + MDY_TILE : width;
        const mdy_tile_t tile = {rows, {(uint16_t)ox, (uint16_t)end}};
        layer->op->correct(layer->p, selected, x, tile, correction.acc_init);
        layer->op->forward(layer->p, weights, x, y, tile, correction.acc_init, correction.workspace);
    }
}

void mdy_run_layer(mdy_t *m, const mdy_layer_t *layer, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int corrected = selected.count > 0 || layer->bias != MDY_FROZEN;
    const mdy_conv_t *p = layer->p;
    const mdy_view_t x_view = mdy_view(m, x);
    const mdy_view_t y_view = mdy_view(m, y);
    const mdy_range_t range = {p->act_min, p->act_max};
    const uint16_t together = corrected ? correction_of(m, layer).rows : layer->band;
    for (mdy_rows_t walk = mdy_rows(m, y->shape.h, rows); mdy_next_band(&walk, together);) {
        const mdy_band_t band = mdy_this_band(&walk);
        if (corrected) {
            if (m->training == MDY_FORWARD) {
                for (uint16_t row = band.begin; row < band.end; row++) {
                    gather(&selected, p, &x_view, row);
                }
            }
            run_corrected(m, layer, &selected, &x_view, &y_view, band);
        } else {
            const mdy_tile_t tile = {band, {0, p->out.w}};
            layer->op->forward(p, mdy_layer_weights(m, layer), &x_view, &y_view, tile, NULL, workspace_of(m, layer));
        }
        for (uint16_t row = band.begin; row < band.end; row++) {
            mdy_keep_mask(m, &layer->mask, layer->order, y, row, range);
        }
    }
}

void mdy_back_input(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, const mdy_gradient_t *dx,
                    const mdy_joins_t *joins, mdy_band_t rows)
{
    if (mdy_stops_at(m, layer->order)) {
        return;
    }
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const int8_t *weights = mdy_layer_weights(m, layer);
    const mdy_view_t dy_view = mdy_grad_view(m, dy);
    const mdy_workspace_t workspace = {m->planned + layer->workspace_back, layer->workspace_back_bytes};
    mdy_sink_t sink;
    mdy_sink_open(&sink, m, dx, joins, layer->scratch_back, m->slot_e[dy->slot] + layer->p->grad_exponent, rows.begin);
    for (mdy_rows_t walk = mdy_rows(m, dx->shape.h, rows); mdy_next_band(&walk, layer->band_back);) {
        layer->op->backward_input(layer->p, weights, &selected, &dy_view, mdy_this_band(&walk), &sink, workspace);
    }
    mdy_sink_close(&sink);
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

static uint16_t taps_of(const mdy_conv_t *p)
{
    return (uint16_t)(p->kernel_h * p->kernel_w);
}

/* Makes the sums of some taps of `count` slots. */
static void sum_gradients(mdy_update_t *u, uint32_t slot, uint32_t count, mdy_band_t taps)
{
    const mdy_conv_t *p = u->layer->p;
    const mdy_view_t dy_view = mdy_grad_view(u->m, u->dy);
    const mdy_band_t all = {0, u->dy->shape.h};
    mdy_selected_t some = *u->selected;
    some.records = mdy_record(u->selected, slot);
    some.count = (uint16_t)count;
    memset(u->sums, 0, count * (uint32_t)(taps.end - taps.begin) * p->group_out * sizeof *u->sums);
    u->layer->op->backward_weight(p, &some, taps, &dy_view, all, u->sums, u->workspace);
}

/* Gives the optimiser the sums of every tap, of as many at a time as there is room for; they stay if that is all. */
static void every_tap(mdy_update_t *u)
{
    const mdy_conv_t *p = u->layer->p;
    const uint32_t slots = u->selected->count;
    const uint32_t tap_bytes = p->group_out * (uint32_t)sizeof *u->sums;
    const uint32_t room = u->summed ? slots * taps_of(p) : u->sums_bytes / tap_bytes; /* in taps */
    const uint32_t at_once = room >= taps_of(p) ? taps_of(p) : room;
    const uint32_t most = room >= taps_of(p) ? room / taps_of(p) : 1;
    for (uint32_t first = 0; first < slots; first += most) {
        const uint32_t count = slots - first < most ? slots - first : most;
        mdy_band_t taps = {0, 0};
        for (; taps.begin < taps_of(p); taps.begin = taps.end) {
            taps.end = (uint16_t)(taps.begin + at_once < taps_of(p) ? taps.begin + at_once : taps_of(p));
            if (!u->summed) {
                sum_gradients(u, first, count, taps);
            }
            const mdy_wacc_t *sums = u->sums;
            for (uint32_t slot = first; slot < first + count; slot++) {
                for (uint32_t tap = taps.begin; tap < taps.end; tap++, sums += p->group_out) {
                    u->m->model->optimizer->tap(u, slot, tap, sums);
                }
            }
        }
    }
    u->summed = most >= slots && at_once == taps_of(p);
}

/* Puts the sums of gradients that do not come by rows into the workspace, if they have more room there than a tap's. */
static void place_sums(mdy_update_t *u)
{
    const uint32_t most = u->selected->count * u->selected->delta_bytes * (uint32_t)sizeof *u->sums;
    const uint32_t kept = u->workspace.bytes >= 2 * KERNEL_SHARE ? KERNEL_SHARE : u->workspace.bytes / 2;
    const uint32_t room = (u->workspace.bytes - kept) & ~7u;
    if (room > u->sums_bytes) {
        u->sums_bytes = room < most ? room : (most + 7u) & ~7u;
        u->sums = (mdy_wacc_t *)(void *)u->workspace.at;
        u->workspace.at += u->sums_bytes;
        u->workspace.bytes -= u->sums_bytes;
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
        .dy = dy,
        .pass = every_tap,
        .sums = (mdy_wacc_t *)(void *)(m->planned + (sums == MDY_NONE ? layer->scratch_update : sums)),
        .sums_bytes = layer->p->group_out * (uint32_t)sizeof(mdy_wacc_t),
        .workspace = {m->planned + layer->workspace_update, layer->workspace_update_bytes},
        .summed = sums != MDY_NONE,
        .key = mdy_rng_key(m->seed, MDY_RNG_ROUNDING, m->steps, layer->order),
        .exponent = m->slot_e[dy->slot],
        .rate_mult = m->rate_mult,
        .rate_exponent = m->rate_exponent,
    };
    return update;
}

void mdy_back_weights(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums, mdy_band_t rows)
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
        const mdy_band_t taps = {0, taps_of(layer->p)};
        layer->op->backward_weight(layer->p, &selected, taps, &dy_view, rows, update.sums, update.workspace);
    }
}

/* Updates a layer's biases from the sums of mdy_back_weights, or from the whole of dy. */
static void update_biases(mdy_t *m, const mdy_layer_t *layer, const mdy_gradient_t *dy, uint32_t sums)
{
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    mdy_update_t update = update_of(m, layer, &selected, dy, sums);
    if (!update.summed) {
        const mdy_view_t dy_view = mdy_grad_view(m, dy);
        const mdy_band_t all = {0, dy->shape.h};
        memset(update.sums, 0, dy->shape.c * sizeof *update.sums);
        add_biases(dy, &dy_view, all, update.sums);
    }
    const mdy_biases_t *biases = &m->model->biases[layer->bias];
    update.key = mdy_rng_key(m->seed, MDY_RNG_BIASES, m->steps, layer->order);
    m->model->optimizer->biases(&update, biases, m->biases + biases->first);
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
    if (!update.summed) {
        place_sums(&update);
    } else if (biases) {
        update.sums += layer->p->out.c;
    }
    m->model->optimizer->layer(&update);
}
