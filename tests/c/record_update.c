/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for sgd.c: notes the weight gradients of every selected channel instead of applying them. */
#include "mdy/sgd.h"

#include <math.h>

/* Indexed by candidate channel, then tap, then output channel; set by the test. */
double *mdy_recorded;
uint32_t *mdy_recorded_start; /* per candidate layer: first element of its channel 0 */

static void record_tap(mdy_update_t *u, uint32_t slot, uint32_t tap, const mdy_wacc_t *sums)
{
    const mdy_conv_t *p = u->layer->p;
    const uint32_t outputs = p->group_out;
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w;
    const uint32_t channel = mdy_record_channel(mdy_record(u->selected, slot));
    double *to = mdy_recorded + mdy_recorded_start[u->layer->candidate] + (channel * taps + tap) * outputs;
    for (uint32_t i = 0; i < outputs; i++) {
        to[i] += ldexp((double)sums[i], u->exponent);
    }
}

static void no_batch(mdy_update_t *u)
{
    (void)u;
}

double *mdy_recorded_biases; /* of all that are trained */

static void record_biases(mdy_update_t *u, const mdy_biases_t *p, int32_t *bias)
{
    (void)bias;
    for (uint32_t o = 0; o < u->layer->p->out.c; o++) {
        mdy_recorded_biases[p->first + o] += ldexp((double)u->sums[o], u->exponent);
    }
}

static void record_layer(mdy_update_t *u)
{
    u->pass(u);
}

const mdy_optimizer_t mdy_sgd = {
    .layer = record_layer,
    .tap = record_tap,
    .biases = record_biases,
    .batch = no_batch,
};
