/* SPDX-License-Identifier: Apache-2.0 */
#include "sign.h"

static void take_layer(mdy_update_t *u)
{
    u->pass(u);
}

static void take_tap(mdy_update_t *u, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    const mdy_conv_t *p = u->layer->p;
    uint8_t *record = mdy_record(u->selected, slot);
    const uint32_t channel = mdy_record_channel(record);
    int8_t *delta = mdy_record_delta(record) + tap * p->group_out;
    uint8_t *steps = (uint8_t *)mdy_record_kept(u->selected, record, 1) + tap * p->group_out;
    for (uint32_t i = 0; i < p->group_out; i++) {
        const uint32_t offset = u->layer->op->weight_offset(p, mdy_first_output(p, channel) + i, tap, channel);
        const int32_t weight = u->weights[offset] + delta[i];
        const int32_t step = sums[i] > 0 ? -1 : sums[i] < 0 ? 1 : 0;
        if (step != 0 && weight + step >= p->w_min && weight + step <= 127) {
            delta[i] = (int8_t)(delta[i] + step);
            steps[i]++;
        }
    }
    mdy_record_set_squares(record, mdy_record_squares(record) + 1);
}

static void take_biases(mdy_update_t *u, const mdy_biases_t *p, int32_t *bias)
{
    (void)u;
    (void)p;
    (void)bias;
}

static void take_batch(mdy_update_t *u)
{
    (void)u;
}

const mdy_optimizer_t sign_descent = {
    .layer = take_layer,
    .tap = take_tap,
    .biases = take_biases,
    .batch = take_batch,
};

/* Of a model that is trained: records, deltas that are not their steps' parity, steps in all. */
void sign_counts(const mdy_t *m, uint32_t counts[3])
{
    counts[0] = counts[1] = counts[2] = 0;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        for (uint32_t slot = 0; slot < m->count[i]; slot++) {
            uint8_t *record = m->epoch + m->first[i] + slot * candidate->record_bytes;
            const mdy_selected_t selected = {record, candidate->record_bytes, candidate->delta_bytes, 1, NULL};
            const uint8_t *steps = mdy_record_kept(&selected, record, 1);
            counts[0]++;
            for (uint32_t w = 0; w < candidate->delta_bytes; w++) {
                counts[1] += (mdy_record_delta(record)[w] + steps[w]) % 2 != 0;
                counts[2] += steps[w];
            }
        }
    }
}
