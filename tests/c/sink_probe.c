/* SPDX-License-Identifier: Apache-2.0 */
/* The stored gradient of one row of pixels, from given accumulators. */
#include <string.h>

#include "mdy/gradient.h"
#include "mdy/ops/conv.h"
#include "mdy/view.h"

/* accs: `width` pixels of `channels`; r: the slot's prediction, and what it is afterwards. Returns the exponent. */
int32_t sink_row(const int32_t *accs, uint32_t width, uint32_t channels, int32_t acc_exponent, int32_t reference,
                 int16_t *r, mdy_grad_t *out)
{
    static union {
        int32_t word; /* for its alignment */
        uint8_t bytes[8192];
    } planned;
    const uint32_t scratch = 4096;
    int16_t e = 0;
    const mdy_gradient_t dx = {
        .shape = {1, (uint16_t)width, (uint16_t)channels},
        .rows = 1,
        .mask = {.offset = MDY_NONE},
    };
    mdy_t m = {.planned = planned.bytes, .slot_r = r, .slot_e = &e, .reference = reference};
    mdy_sink_t sink;
    mdy_sink_open(&sink, &m, &dx, NULL, scratch, acc_exponent, 0);
    for (uint32_t x = 0; x < width; x++) {
        int32_t *acc = mdy_sink_begin(&sink);
        for (uint32_t c = 0; c < channels; c++) {
            acc[c] += accs[x * channels + c];
        }
        mdy_sink_end(&sink, 0, (int32_t)x);
    }
    mdy_sink_close(&sink);
    memcpy(out, planned.bytes, width * channels * sizeof *out);
    return e;
}
