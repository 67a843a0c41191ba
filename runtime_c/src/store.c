/* SPDX-License-Identifier: Apache-2.0 */
/* A bank: 64 bytes of header, the saved part of the state region, the candidate weights.
 * The header goes last and carries the CRC of the rest, so a cut leaves the old bank or the new one. */
#include "mdy/store.h"

#include <string.h>

#include "mdy/crc.h"
#include "mdy/port.h"
#include "mdy/train.h"

#define MAGIC 0x4259444du /* "MDYB" */
#define WORDS (MDY_STORE_HEADER_BYTES / 4u)
#define PAGE 256u

enum {
    H_MAGIC,
    H_FORMAT,
    H_GENERATION,
    H_DIGEST,
    H_PAYLOAD_BYTES,
    H_PAYLOAD_CRC,
    H_EPOCHS,
    H_STEPS,
    H_SEED,
    H_RATE_MULT,
    H_RATE_EXPONENT,
    H_COSINE,
    H_WARMUP_STEPS,
    H_TOTAL_STEPS,
    H_FLAGS,
    H_CRC
};

static uint32_t payload_bytes(const mdy_model_t *model, uint32_t saved_bytes)
{
    return saved_bytes + model->bank_weight_bytes;
}

uint32_t mdy_store_bank_bytes(const mdy_model_t *model, uint32_t saved_bytes)
{
    const uint32_t sector = mdy_port_flash.sector_bytes;
    const uint32_t bytes = MDY_STORE_HEADER_BYTES + payload_bytes(model, saved_bytes);
    return (bytes + sector - 1) / sector * sector;
}

static uint32_t bank_address(const mdy_t *m, uint32_t bank)
{
    return bank * mdy_store_bank_bytes(m->model, m->saved_bytes);
}

/* A header that is whole: magic, format and its own CRC. */
static int read_header(const mdy_t *m, uint32_t bank, uint32_t *header)
{
    if (mdy_port_flash_read(bank_address(m, bank), header, MDY_STORE_HEADER_BYTES) != MDY_OK) {
        return 0; /* torn while it was written: this bank was never completed */
    }
    return header[H_MAGIC] == MAGIC && header[H_FORMAT] == MDY_STORE_FORMAT &&
           header[H_CRC] == mdy_crc32(0, header, 4u * H_CRC);
}

static int payload_valid(const mdy_t *m, uint32_t bank, const uint32_t *header)
{
    uint8_t page[PAGE];
    uint32_t crc = 0;
    const uint32_t n = payload_bytes(m->model, m->saved_bytes);
    const uint32_t start = bank_address(m, bank) + MDY_STORE_HEADER_BYTES;
    for (uint32_t i = 0; i < n; i += PAGE) {
        const uint32_t part = n - i < PAGE ? n - i : PAGE;
        if (mdy_port_flash_read(start + i, page, part) != MDY_OK) {
            return 0;
        }
        crc = mdy_crc32(crc, page, part);
    }
    return crc == header[H_PAYLOAD_CRC];
}

/* The newest valid bank (0 or 1) and its header. */
static mdy_status_t newest(const mdy_t *m, uint32_t *bank, uint32_t *header)
{
    uint32_t other[WORDS];
    mdy_status_t status = MDY_EMPTY;
    for (uint32_t i = 0; i < 2; i++) {
        if (!read_header(m, i, other) ||
            (status == MDY_OK && (int32_t)(other[H_GENERATION] - header[H_GENERATION]) < 0)) {
            continue;
        }
        if (other[H_DIGEST] != m->model->digest ||
            other[H_PAYLOAD_BYTES] != payload_bytes(m->model, m->saved_bytes)) {
            status = status == MDY_OK ? MDY_OK : MDY_MODEL;
        } else if (payload_valid(m, i, other)) {
            memcpy(header, other, sizeof other);
            *bank = i;
            status = MDY_OK;
        }
    }
    return status;
}

mdy_status_t mdy_store_load(mdy_t *m)
{
    uint32_t header[WORDS] = {0};
    uint32_t bank = 0;
    mdy_status_t status = newest(m, &bank, header);
    if (status != MDY_OK) {
        return status;
    }
    const uint32_t address = bank_address(m, bank) + MDY_STORE_HEADER_BYTES;
    status = mdy_port_flash_read(address, m->state, m->saved_bytes);
    if (status != MDY_OK) {
        return status;
    }
    m->weights = mdy_port_flash_map() + address + m->saved_bytes;
    m->bank = (uint8_t)bank;
    m->generation = header[H_GENERATION];
    m->epochs = header[H_EPOCHS];
    m->steps = header[H_STEPS];
    m->seed = header[H_SEED];
    m->schedule.rate_mult = header[H_RATE_MULT];
    memcpy(&m->schedule.rate_exponent, &header[H_RATE_EXPONENT], 4);
    m->schedule.cosine = header[H_COSINE];
    m->schedule.warmup_steps = header[H_WARMUP_STEPS];
    m->schedule.total_steps = header[H_TOTAL_STEPS];
    m->head_only = header[H_FLAGS] & 1u;
    m->flip = header[H_FLAGS] >> 1 & 1u;
    return MDY_OK;
}

void mdy_store_pass_over(mdy_t *m)
{
    uint32_t header[WORDS];
    int found = 0;
    m->bank = 1;
    m->generation = 0;
    for (uint32_t bank = 0; bank < 2; bank++) {
        if (read_header(m, bank, header) &&
            (!found || (int32_t)(header[H_GENERATION] - m->generation) > 0)) {
            found = 1;
            m->bank = (uint8_t)bank;
            m->generation = header[H_GENERATION];
        }
    }
}

/* One page of a candidate layer's new weights: the old ones plus the deltas that fall into it. */
static void fill_weights(const mdy_t *m, const mdy_layer_t *layer, uint32_t start, uint32_t n,
                         uint8_t *page)
{
    const mdy_conv_t *p = layer->p;
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w;
    memcpy(page, mdy_layer_weights(m, layer) + start, n);
    for (uint32_t slot = 0; slot < selected.count; slot++) {
        uint8_t *record = mdy_record(&selected, slot);
        const uint32_t channel = mdy_record_channel(record);
        const int8_t *delta = mdy_record_delta(record);
        for (uint32_t i = 0; i < taps * p->group_out; i++) {
            const uint32_t o = mdy_first_output(p, channel) + i % p->group_out;
            const uint32_t offset = layer->op->weight_offset(p, o, i / p->group_out, channel);
            if (offset >= start && offset - start < n) {
                page[offset - start] = (uint8_t)(page[offset - start] + (uint8_t)delta[i]);
            }
        }
    }
}

/* Payload bytes [start, start + n) of the next generation; n <= PAGE. */
static void fill_payload(const mdy_t *m, uint32_t start, uint32_t n, uint8_t *page)
{
    if (start < m->saved_bytes) {
        const uint32_t part = m->saved_bytes - start < n ? m->saved_bytes - start : n;
        memcpy(page, m->state + start, part);
        start += part;
        page += part;
        n -= part;
    }
    for (uint32_t i = 0; i < m->model->candidate_count && n > 0; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        const uint32_t first = m->saved_bytes + candidate->bank_offset;
        if (start >= first && start < first + candidate->layer->weight_bytes) {
            const uint32_t left = first + candidate->layer->weight_bytes - start;
            const uint32_t part = left < n ? left : n;
            fill_weights(m, candidate->layer, start - first, part, page);
            start += part;
            page += part;
            n -= part;
        }
    }
}

static mdy_status_t erase_bank(const mdy_t *m, uint32_t bank)
{
    const uint32_t bytes = mdy_store_bank_bytes(m->model, m->saved_bytes);
    for (uint32_t i = 0; i < bytes; i += mdy_port_flash.sector_bytes) {
        const mdy_status_t status = mdy_port_flash_erase(bank_address(m, bank) + i);
        if (status != MDY_OK) {
            return status;
        }
    }
    return MDY_OK;
}

/* Programs the payload page by page; its CRC comes back in *crc. */
static mdy_status_t program_payload(const mdy_t *m, uint32_t bank, uint32_t *crc)
{
    uint8_t page[PAGE];
    const uint32_t unit = mdy_port_flash.unit_bytes;
    const uint32_t n = payload_bytes(m->model, m->saved_bytes);
    const uint32_t address = bank_address(m, bank) + MDY_STORE_HEADER_BYTES;
    *crc = 0;
    for (uint32_t i = 0; i < n; i += PAGE) {
        const uint32_t part = n - i < PAGE ? n - i : PAGE;
        const uint32_t padded = (part + unit - 1) / unit * unit;
        memset(page, 0xff, sizeof page);
        fill_payload(m, i, part, page);
        *crc = mdy_crc32(*crc, page, part);
        const mdy_status_t status = mdy_port_flash_program(address + i, page, padded);
        if (status != MDY_OK) {
            return status;
        }
    }
    return MDY_OK;
}

mdy_status_t mdy_store_commit(mdy_t *m)
{
    uint32_t header[WORDS] = {0};
    const uint32_t bank = 1u - m->bank;
    mdy_status_t status = erase_bank(m, bank);
    uint32_t crc = 0;
    if (status == MDY_OK) {
        status = program_payload(m, bank, &crc);
    }
    if (status != MDY_OK) {
        return status;
    }
    header[H_MAGIC] = MAGIC;
    header[H_FORMAT] = MDY_STORE_FORMAT;
    header[H_GENERATION] = m->generation + 1;
    header[H_DIGEST] = m->model->digest;
    header[H_PAYLOAD_BYTES] = payload_bytes(m->model, m->saved_bytes);
    header[H_PAYLOAD_CRC] = crc;
    header[H_EPOCHS] = m->epochs + 1;
    header[H_STEPS] = m->steps;
    header[H_SEED] = m->seed;
    header[H_RATE_MULT] = m->schedule.rate_mult;
    memcpy(&header[H_RATE_EXPONENT], &m->schedule.rate_exponent, 4);
    header[H_COSINE] = m->schedule.cosine;
    header[H_WARMUP_STEPS] = m->schedule.warmup_steps;
    header[H_TOTAL_STEPS] = m->schedule.total_steps;
    header[H_FLAGS] = (uint32_t)m->head_only | (uint32_t)m->flip << 1;
    header[H_CRC] = mdy_crc32(0, header, 4u * H_CRC);
    status = mdy_port_flash_program(bank_address(m, bank), header, MDY_STORE_HEADER_BYTES);
    if (status != MDY_OK) {
        return status;
    }
    m->generation++;
    m->bank = (uint8_t)bank;
    m->weights = mdy_port_flash_map() + bank_address(m, bank) + MDY_STORE_HEADER_BYTES + m->saved_bytes;
    return MDY_OK;
}

mdy_status_t mdy_store_forget(const mdy_t *m, int all)
{
    uint32_t header[WORDS];
    uint32_t bank = 0;
    if (!all) {
        const mdy_status_t status = newest(m, &bank, header);
        return status == MDY_OK ? mdy_port_flash_erase(bank_address(m, bank)) : status;
    }
    const mdy_status_t status = mdy_port_flash_erase(bank_address(m, 0));
    return status == MDY_OK ? mdy_port_flash_erase(bank_address(m, 1)) : status;
}
