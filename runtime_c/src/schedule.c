/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/schedule.h"

#include "mdy/fixed.h"

int mdy_schedule_valid(const mdy_schedule_t *schedule)
{
    return schedule->rate_mult <= UINT16_MAX && schedule->rate_exponent >= -64 && schedule->rate_exponent <= 64 &&
           mdy_norm_pack(mdy_norm_unpack(schedule->clip)) == schedule->clip;
}

void mdy_schedule_step(mdy_t *m)
{
    const mdy_schedule_t *s = &m->schedule;
    const uint32_t rest = mdy_batch_rest(m->model);
    const uint32_t steps = m->steps - (m->epoch_step & rest);
    uint64_t factor = 65536;
    if (steps < s->warmup_steps) {
        factor = ((uint64_t)(steps + 1) << 16) / s->warmup_steps;
    } else if (s->cosine != 0) {
        const uint32_t done = steps - s->warmup_steps;
        const uint32_t length = s->total_steps > s->warmup_steps ? s->total_steps - s->warmup_steps : 1;
        factor = done >= length ? 0 : mdy_cos2((uint32_t)(((uint64_t)done << 16) / length));
    }
    m->rate_mult = (uint32_t)((s->rate_mult * factor) >> 16);
    m->rate_exponent = s->rate_exponent - m->model->batch_log2;
}
