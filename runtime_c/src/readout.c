/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/readout.h"

#include <string.h>

#include "mdy/crc.h"
#include "mdy/mdy.h"
#include "mdy/sampler.h"
#include "mdy/store.h"

/* Where an array is; of one in flash *at is NULL and *start its address. */
static mdy_status_t find(const mdy_t *m, uint32_t kind, const uint8_t **at, uint32_t *start, uint32_t *bytes)
{
    const mdy_model_t *model = m->model;
    switch (kind) {
    case MDY_ARRAY_LOGITS:
        *at = model->head == NULL ? NULL : (const uint8_t *)mdy_logits(m);
        *bytes = 4u * mdy_classes(model);
        return MDY_OK;
    case MDY_ARRAY_NORMS:
        *at = (const uint8_t *)m->norms;
        *bytes = mdy_sampler_norm_bytes(model);
        return MDY_OK;
    case MDY_ARRAY_SELECTION:
        *at = m->selection;
        *bytes = (model->channel_count + 7u) / 8u;
        return MDY_OK;
    case MDY_ARRAY_EXPONENTS:
        *at = (const uint8_t *)m->slot_r;
        *bytes = 2u * model->slot_count;
        return MDY_OK;
    case MDY_ARRAY_STATE:
        *at = m->state;
        *bytes = m->saved_bytes;
        return MDY_OK;
    case MDY_ARRAY_WEIGHTS:
        *at = m->ram_weights;
        *start = mdy_store_weights(m);
        *bytes = m->weights == NULL ? 0 : model->bank_weight_bytes;
        return MDY_OK;
    case MDY_ARRAY_OUTPUT:
        *at = (const uint8_t *)mdy_output(m);
        *bytes = mdy_tensor_bytes(&model->output);
        return MDY_OK;
    case MDY_ARRAY_BANK: /* as it lies in flash: the state in RAM has moved on */
        if (m->weights != NULL && !model->weights_in_ram) {
            *start = m->banks[m->bank].address;
            *bytes = mdy_store_weights(m) + model->bank_weight_bytes - *start;
        }
        return MDY_OK;
    case MDY_ARRAY_RESERVED: /* whatever generations lie there */
        *bytes = m->flash == NULL ? 0 : mdy_flash_bytes(m->flash->geometry);
        return MDY_OK;
    default:
        return MDY_ARGUMENT;
    }
}

mdy_status_t mdy_readout(const mdy_t *m, uint32_t kind, uint32_t offset, uint8_t *bytes, uint32_t *n)
{
    const uint8_t *at = NULL;
    uint32_t start = 0;
    uint32_t size = 0;
    const mdy_status_t status = find(m, kind, &at, &start, &size);
    if (status != MDY_OK || offset > size) {
        return MDY_ARGUMENT;
    }
    *n = size - offset < *n ? size - offset : *n;
    if (*n > 0 && at == NULL) {
        return mdy_store_read(m->flash, start + offset, bytes, *n);
    }
    if (*n > 0) {
        memcpy(bytes, at + offset, *n);
    }
    return MDY_OK;
}

uint32_t mdy_readout_deltas(const mdy_t *m)
{
    uint32_t crc = 0;
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_selected_t selected = mdy_layer_selected(m, m->model->candidates[i].layer);
        for (uint32_t slot = 0; slot < selected.count; slot++) {
            uint8_t *record = mdy_record(&selected, slot);
            crc = mdy_crc32_word(crc, mdy_record_channel(record));
            crc = mdy_crc32(crc, mdy_record_delta(record), selected.delta_bytes);
        }
    }
    return crc;
}

uint32_t mdy_readout_flash(const mdy_t *m, uint8_t *part)
{
    uint32_t crc = 0;
    const uint32_t end = m->banks[1].address + m->banks[1].bytes;
    for (uint32_t address = 0; address < end; address += MDY_READOUT_PART) {
        const uint32_t n = end - address < MDY_READOUT_PART ? end - address : MDY_READOUT_PART;
        if (m->flash->read(m->flash->context, address, part, n) != MDY_OK) {
            memset(part, 0, n);
        }
        crc = mdy_crc32(crc, part, n);
    }
    return crc;
}

uint32_t mdy_readout_mark(const uint8_t *region, uint32_t bytes, uint8_t pattern)
{
    while (bytes > 0 && region[bytes - 1] == pattern) {
        bytes--;
    }
    return bytes;
}
