/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/ops/reshape.h"

#include <string.h>

#include "mdy/view.h"

static uint32_t gradient_bytes(const mdy_gradient_t *g)
{
    return (uint32_t)g->shape.h * g->shape.w * g->shape.c * (uint32_t)sizeof(mdy_grad_t);
}

void mdy_run_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_tensor_t *x, const mdy_tensor_t *y, mdy_band_t rows)
{
    (void)p;
    (void)rows; /* all at once: the rows of one are not the rows of the other */
    memmove(m->planned + y->offset, m->planned + x->offset, mdy_tensor_bytes(x));
}

void mdy_back_reshape(mdy_t *m, const mdy_reshape_t *p, const mdy_gradient_t *dy, const mdy_gradient_t *dx)
{
    if (mdy_stops_at(m, p->order)) {
        return;
    }
    memmove(m->planned + dx->offset, m->planned + dy->offset, gradient_bytes(dy));
}
