/* SPDX-License-Identifier: Apache-2.0 */
/** Rows of planned tensors, gradients and clamp masks, as steps go over them. */
#ifndef MDY_VIEW_H
#define MDY_VIEW_H

#include "mdy/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The views of a planned tensor and gradient: all of their rows, or a ring. */
mdy_view_t mdy_view(const mdy_t *m, const mdy_tensor_t *t);

mdy_view_t mdy_grad_view(const mdy_t *m, const mdy_gradient_t *g);

/** Row `row` of the clamp mask of a tensor of that shape. */
uint8_t *mdy_mask_row(const mdy_t *m, const mdy_mask_t *mask, mdy_shape_t shape, int32_t row);

/** The range of an activation; a value strictly inside passes gradients. */
typedef struct {
    int32_t low, high;
} mdy_range_t;

/** Sets bit i of a row's mask where its i-th value is inside; in training steps only, for nodes that take part. */
void mdy_keep_mask(const mdy_t *m, const mdy_mask_t *mask, uint16_t order, const mdy_tensor_t *y, uint16_t row,
                   mdy_range_t range);

/** Calls the yield hook; 0 when the step was aborted. */
int mdy_go_on(mdy_t *m);

/** Rows that a step makes one after the other. */
typedef struct {
    mdy_t *m;
    uint16_t row; /* of now, the first one of a band */
    uint16_t next, end;
} mdy_rows_t;

/** Those of `rows` that a tensor of that height has. */
static inline mdy_rows_t mdy_rows(mdy_t *m, uint16_t height, mdy_band_t rows)
{
    const mdy_rows_t walk = {m, 0, rows.begin, rows.end < height ? rows.end : height};
    return walk;
}

/** Goes to the next `count` rows, or what there is of them; 0 after the last one, or when the step was aborted. */
static inline int mdy_next_band(mdy_rows_t *walk, uint16_t count)
{
    if (walk->next >= walk->end || !mdy_go_on(walk->m)) {
        return 0;
    }
    walk->row = walk->next;
    walk->next = (uint16_t)(walk->end - walk->row > count ? walk->row + count : walk->end);
    return 1;
}

/** Goes to the next row; 0 after the last one, or when the step was aborted. */
static inline int mdy_next_row(mdy_rows_t *walk)
{
    return mdy_next_band(walk, 1);
}

/** The rows of now: one, or those of the band. */
static inline mdy_band_t mdy_this_band(const mdy_rows_t *walk)
{
    const mdy_band_t band = {walk->row, walk->next};
    return band;
}

/** Whether no gradient goes on through a node: nothing in front of it is trained, or the step was aborted. */
static inline int mdy_stops_at(const mdy_t *m, uint16_t order)
{
    return order <= m->deepest || m->aborted;
}

#ifdef __cplusplus
}
#endif

#endif
