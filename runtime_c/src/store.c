/* SPDX-License-Identifier: Apache-2.0 */
/* A bank: 64 bytes of header, the saved part of the state region, the candidate weights.
 * The header goes last and carries the CRC of the rest, so a cut leaves the old bank or the new one. */
#include "mdy/store.h"

#include <string.h>

#include "mdy/crc.h"
#include "mdy/head.h"
#include "mdy/train.h"

#define MAGIC 0x4259444du /* "MDYB" */
#define WORDS (MDY_STORE_HEADER_BYTES / 4u)
#define PAGE 256u
#define RATE_BIAS 0x8000 /* makes the rate's exponent a half word without a sign */

/* Words 0, 1, 2 and 15 mean the same in every format. */
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
    H_RATE,
    H_WARMUP_STEPS,
    H_TOTAL_STEPS,
    H_FLAGS,
    H_ERASES,
    H_OTHER_ERASES,
    H_CRC
};

static uint32_t payload_bytes(const mdy_t *m)
{
    return m->saved_bytes + m->model->bank_weight_bytes;
}

static uint32_t payload_address(const mdy_t *m, uint32_t bank)
{
    return m->banks[bank].address + MDY_STORE_HEADER_BYTES;
}

static int is_erased(const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (bytes[i] != 0xffu) {
            return 0;
        }
    }
    return 1;
}

/* Reads a bank's payload: its CRC, and whether it is erased. Errors: MDY_FLASH. */
static mdy_status_t scan_payload(const mdy_t *m, uint32_t bank, uint32_t *crc, int *erased)
{
    uint8_t page[PAGE];
    const uint32_t n = payload_bytes(m);
    *crc = 0;
    *erased = 1;
    for (uint32_t i = 0; i < n; i += PAGE) {
        const uint32_t part = n - i < PAGE ? n - i : PAGE;
        const mdy_status_t status = mdy_port_flash_read(payload_address(m, bank) + i, page, part);
        if (status != MDY_OK) {
            return status;
        }
        *crc = mdy_crc32(*crc, page, part);
        *erased = *erased && is_erased(page, part);
    }
    return MDY_OK;
}

/* What a bank holds. Without a whole header, header[H_MAGIC] is 0 afterwards. */
static mdy_found_t inspect(const mdy_t *m, uint32_t bank, uint32_t *header)
{
    mdy_found_t found = {0, 0, MDY_BANK_DAMAGED};
    uint32_t crc = 0;
    int erased = 0;
    const mdy_status_t status = mdy_port_flash_read(m->banks[bank].address, header, MDY_STORE_HEADER_BYTES);
    if (status != MDY_OK) { /* torn while it was written, or worn out */
        header[H_MAGIC] = 0;
        return found;
    }
    if (header[H_MAGIC] != MAGIC || header[H_CRC] != mdy_crc32(0, header, 4u * H_CRC)) {
        if (is_erased((const uint8_t *)header, MDY_STORE_HEADER_BYTES)) {
            erased = scan_payload(m, bank, &crc, &erased) == MDY_OK && erased;
            found.state = erased ? MDY_BANK_EMPTY : MDY_BANK_UNFINISHED;
        }
        header[H_MAGIC] = 0;
        return found;
    }
    found.generation = header[H_GENERATION];
    found.origin = header[H_DIGEST];
    if (header[H_FORMAT] != MDY_STORE_FORMAT) {
        found.origin = header[H_FORMAT];
        found.state = MDY_BANK_FORMAT;
    } else if (header[H_DIGEST] != m->model->digest || header[H_PAYLOAD_BYTES] != payload_bytes(m)) {
        found.state = MDY_BANK_MODEL;
    } else if (scan_payload(m, bank, &crc, &erased) == MDY_OK && crc == header[H_PAYLOAD_CRC]) {
        found.state = MDY_BANK_USABLE;
    }
    return found;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static int is_newer(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0; /* numbers wrap around */
}

mdy_status_t mdy_store_open(mdy_t *m)
{
    const uint32_t bytes = MDY_STORE_HEADER_BYTES + payload_bytes(m);
    int numbered = 0;
    m->bank = 1;
    m->generation = 0;
    if (mdy_banks_place(&mdy_port_flash, bytes, m->banks) != MDY_OK) {
        return MDY_FLASH;
    }
    for (uint32_t bank = 0; bank < 2; bank++) {
        uint32_t header[WORDS] = {0};
        m->found[bank] = inspect(m, bank, header);
        if (header[H_MAGIC] == MAGIC && (!numbered || is_newer(header[H_GENERATION], m->generation))) {
            numbered = 1;
            m->bank = (uint8_t)bank;
            m->generation = header[H_GENERATION];
        }
        if (header[H_MAGIC] == MAGIC && header[H_FORMAT] == MDY_STORE_FORMAT) {
            m->erases[bank] = larger(m->erases[bank], header[H_ERASES]);
            m->erases[1u - bank] = larger(m->erases[1u - bank], header[H_OTHER_ERASES]);
        }
    }
    return MDY_OK;
}

/* The bank of the newest usable generation; MDY_EMPTY, or MDY_MODEL where there are others' only. */
static mdy_status_t newest(const mdy_found_t found[2], uint32_t *bank)
{
    const int usable[2] = {found[0].state == MDY_BANK_USABLE, found[1].state == MDY_BANK_USABLE};
    if (usable[0] || usable[1]) {
        *bank = usable[1] && (!usable[0] || !is_newer(found[0].generation, found[1].generation));
        return MDY_OK;
    }
    return larger(found[0].state, found[1].state) >= MDY_BANK_MODEL ? MDY_MODEL : MDY_EMPTY;
}

static mdy_status_t load_bank(mdy_t *m, uint32_t bank)
{
    uint32_t header[WORDS] = {0};
    const uint32_t address = payload_address(m, bank);
    if (mdy_port_flash_read(m->banks[bank].address, header, MDY_STORE_HEADER_BYTES) != MDY_OK ||
        mdy_port_flash_read(address, m->state, m->saved_bytes) != MDY_OK) {
        return MDY_FLASH;
    }
    m->weights = mdy_port_flash_map() + address + m->saved_bytes;
    m->bank = (uint8_t)bank;
    m->generation = header[H_GENERATION];
    m->epochs = header[H_EPOCHS];
    m->steps = header[H_STEPS];
    m->seed = header[H_SEED];
    m->schedule.rate_mult = header[H_RATE] & 0xffffu;
    m->schedule.rate_exponent = (int32_t)(header[H_RATE] >> 16) - RATE_BIAS;
    m->schedule.warmup_steps = header[H_WARMUP_STEPS];
    m->schedule.total_steps = header[H_TOTAL_STEPS];
    m->head_only = header[H_FLAGS] & 1u;
    m->flip = header[H_FLAGS] >> 1 & 1u;
    m->schedule.cosine = header[H_FLAGS] >> 2 & 1u;
    m->schedule.clip = (uint16_t)(header[H_FLAGS] >> 16);
    return MDY_OK;
}

mdy_status_t mdy_store_load(mdy_t *m)
{
    uint32_t bank = 0;
    mdy_status_t status = newest(m->found, &bank);
    while (status == MDY_OK && load_bank(m, bank) != MDY_OK) {
        m->found[bank].state = MDY_BANK_DAMAGED;
        status = newest(m->found, &bank);
    }
    return status;
}

/* A part of a candidate layer's new weights: the old ones, which may lie there already, plus their deltas. */
static void fill_weights(const mdy_t *m, const mdy_layer_t *layer, uint32_t start, uint32_t n,
                         uint8_t *page)
{
    const mdy_conv_t *p = layer->p;
    const mdy_selected_t selected = mdy_layer_selected(m, layer);
    const uint32_t taps = (uint32_t)p->kernel_h * p->kernel_w;
    memmove(page, mdy_layer_weights(m, layer) + start, n);
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
    const uint32_t head = mdy_head_bank_bytes(m->model);
    if (n > 0 && start < m->saved_bytes + head) {
        const uint32_t left = m->saved_bytes + head - start;
        const uint32_t part = left < n ? left : n;
        mdy_head_fill(m, start - m->saved_bytes, part, page);
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

void mdy_store_merge(mdy_t *m)
{
    for (uint32_t i = 0; i < m->model->candidate_count; i++) {
        const mdy_candidate_t *candidate = &m->model->candidates[i];
        fill_weights(m, candidate->layer, 0, candidate->layer->weight_bytes, m->ram_weights + candidate->bank_offset);
    }
}

static mdy_status_t erase_bank(mdy_t *m, uint32_t bank)
{
    mdy_status_t status = MDY_OK;
    m->erases[bank]++;
    for (uint32_t done = 0; status == MDY_OK && done < m->banks[bank].bytes;) {
        uint32_t index;
        const uint32_t address = m->banks[bank].address + done;
        status = mdy_port_flash_erase(address);
        done += mdy_flash_sector(&mdy_port_flash, address, &index);
    }
    return status;
}

/* Programs the payload page by page; its CRC comes back in *crc. */
static mdy_status_t program_payload(const mdy_t *m, uint32_t bank, uint32_t *crc)
{
    uint8_t page[PAGE];
    const uint32_t unit = mdy_port_flash.unit_bytes;
    const uint32_t n = payload_bytes(m);
    *crc = 0;
    for (uint32_t i = 0; i < n; i += PAGE) {
        const uint32_t part = n - i < PAGE ? n - i : PAGE;
        const uint32_t padded = (part + unit - 1) / unit * unit;
        memset(page, 0xff, sizeof page);
        fill_payload(m, i, part, page);
        *crc = mdy_crc32(*crc, page, part);
        const mdy_status_t status = mdy_port_flash_program(payload_address(m, bank) + i, page, padded);
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
    header[H_PAYLOAD_BYTES] = payload_bytes(m);
    header[H_PAYLOAD_CRC] = crc;
    header[H_EPOCHS] = m->epochs + 1;
    header[H_STEPS] = m->steps;
    header[H_SEED] = m->seed;
    header[H_RATE] = m->schedule.rate_mult | (uint32_t)(m->schedule.rate_exponent + RATE_BIAS) << 16;
    header[H_WARMUP_STEPS] = m->schedule.warmup_steps;
    header[H_TOTAL_STEPS] = m->schedule.total_steps;
    header[H_FLAGS] = (uint32_t)m->head_only | (uint32_t)m->flip << 1 | (uint32_t)(m->schedule.cosine != 0) << 2 |
                      (uint32_t)m->schedule.clip << 16;
    header[H_ERASES] = m->erases[bank];
    header[H_OTHER_ERASES] = m->erases[1u - bank];
    header[H_CRC] = mdy_crc32(0, header, 4u * H_CRC);
    status = mdy_port_flash_program(m->banks[bank].address, header, MDY_STORE_HEADER_BYTES);
    if (status != MDY_OK) {
        return status;
    }
    m->generation++;
    m->bank = (uint8_t)bank;
    m->weights = mdy_port_flash_map() + payload_address(m, bank) + m->saved_bytes;
    return MDY_OK;
}

mdy_status_t mdy_store_forget(const mdy_t *m, int all)
{
    uint32_t header[WORDS];
    uint32_t bank = 0;
    if (!all) {
        const mdy_found_t found[2] = {inspect(m, 0, header), inspect(m, 1, header)};
        const mdy_status_t status = newest(found, &bank);
        return status == MDY_OK ? mdy_port_flash_erase(m->banks[bank].address) : status;
    }
    const mdy_status_t status = mdy_port_flash_erase(m->banks[0].address);
    return status == MDY_OK ? mdy_port_flash_erase(m->banks[1].address) : status;
}
