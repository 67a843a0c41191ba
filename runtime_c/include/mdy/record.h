/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What one selected channel occupies in the epoch region. SPEC.md, section 3.2.
 *
 *   head    mdy_record_t
 *   delta   (KH, KW, group_out) int8: what the channel's weights have changed by in this epoch
 *   map     (H, W) int8: the channel of the input, saved in the forward pass
 *   kept    what the optimiser keeps of the channel, so many bytes for each weight; 0 of SGD one sample at a time
 */
#ifndef MDY_RECORD_H
#define MDY_RECORD_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Of every record; aligned to 4. */
typedef struct {
    uint32_t squares[2]; /* of the channel's gradients in this epoch, low word first; saturated */
    uint16_t channel;    /* within its layer */
} mdy_record_t;

#define MDY_RECORD_HEAD 10u /* bytes before the delta: the head has no padding behind it */

/** The selected input channels of one layer in this epoch: `count` records, ascending by channel. */
typedef struct {
    uint8_t *records;
    uint32_t record_bytes;
    uint32_t delta_bytes;
    uint16_t count;
    const int32_t *bias; /* of the layer: the factory's, or where it is trained, that */
} mdy_selected_t;

/** A record of a channel: nothing has changed, nothing was seen. */
static inline void mdy_record_clear(uint8_t *record, uint32_t record_bytes, uint32_t channel)
{
    memset(record, 0, record_bytes);
    ((mdy_record_t *)(void *)record)->channel = (uint16_t)channel;
}

static inline uint8_t *mdy_record(const mdy_selected_t *selected, uint32_t slot)
{
    return selected->records + slot * selected->record_bytes;
}

static inline uint32_t mdy_record_channel(const uint8_t *record)
{
    return ((const mdy_record_t *)(const void *)record)->channel;
}

/** The sum of squared gradients, in norm units. */
static inline uint64_t mdy_record_squares(const uint8_t *record)
{
    const mdy_record_t *head = (const mdy_record_t *)(const void *)record;
    return head->squares[0] | ((uint64_t)head->squares[1] << 32);
}

static inline void mdy_record_set_squares(uint8_t *record, uint64_t squares)
{
    mdy_record_t *head = (mdy_record_t *)(void *)record;
    head->squares[0] = (uint32_t)squares;
    head->squares[1] = (uint32_t)(squares >> 32);
}

static inline int8_t *mdy_record_delta(uint8_t *record)
{
    return (int8_t *)(record + MDY_RECORD_HEAD);
}

static inline int8_t *mdy_record_map(const mdy_selected_t *selected, uint8_t *record)
{
    return (int8_t *)(record + MDY_RECORD_HEAD + selected->delta_bytes);
}

/** What the optimiser keeps: `bytes` for each weight, aligned to 2, cleared as an epoch begins. */
static inline void *mdy_record_kept(const mdy_selected_t *selected, uint8_t *record, uint32_t bytes)
{
    return record + selected->record_bytes - bytes * selected->delta_bytes;
}

#ifdef __cplusplus
}
#endif

#endif
