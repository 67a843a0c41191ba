/* SPDX-License-Identifier: Apache-2.0 */
/* A generation's header goes to its bank last and carries the CRC of the rest, so a cut leaves the old bank or the new one.
 * What is checked is what is used: a checksum goes over bytes that were copied, never over a second reading of them. */
#include "mdy/store.h"

#include <string.h>

#include "mdy/crc.h"
#include "mdy/fixed.h"
#include "mdy/generation.h"

#define TRIES 2u /* of what the flash refuses */

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

mdy_status_t mdy_store_read(const mdy_flash_t *flash, uint32_t address, void *dst, uint32_t n)
{
    mdy_status_t status = MDY_FLASH;
    for (uint32_t tries = 0; tries < TRIES && status != MDY_OK; tries++) {
        status = flash->read(flash->context, address, dst, n);
    }
    return status;
}

/* Adds the bytes [address, end) to *crc; *erased: they all are 0xff. Errors: MDY_FLASH. */
static mdy_status_t scan(const mdy_flash_t *flash, mdy_page_t *page, uint32_t address, uint32_t end, uint32_t *crc,
                         int *erased)
{
    *erased = 1;
    while (address < end) {
        const uint32_t part = end - address < MDY_STORE_PAGE ? end - address : MDY_STORE_PAGE;
        const mdy_status_t status = mdy_store_read(flash, address, page->bytes, part);
        if (status != MDY_OK) {
            return status;
        }
        *crc = mdy_crc32(*crc, page->bytes, part);
        *erased = *erased && is_erased(page->bytes, part);
        address += part;
    }
    return MDY_OK;
}

/* The same of a bank's payload, of so many bytes, from its byte `start` on. */
static mdy_status_t scan_payload(const mdy_t *m, mdy_page_t *page, uint32_t bank, uint32_t start, uint32_t bytes,
                                 uint32_t *crc, int *erased)
{
    const uint32_t address = payload_address(m, bank);
    return scan(m->flash, page, address + start, address + bytes, crc, erased);
}

/* Reads a bank's header, and what it alone says of the bank. Without a whole one, header[MDY_H_MAGIC] is 0 afterwards. */
static uint8_t read_header(const mdy_t *m, uint32_t bank, uint32_t *header)
{
    if (mdy_store_read(m->flash, m->banks[bank].address, header, MDY_STORE_HEADER_BYTES) != MDY_OK) {
        header[MDY_H_MAGIC] = 0; /* torn while it was written, or worn out */
        return MDY_BANK_DAMAGED;
    }
    if (header[MDY_H_MAGIC] != MDY_STORE_MAGIC || header[MDY_H_CRC] != mdy_crc32(0, header, 4u * MDY_H_CRC)) {
        const int erased = is_erased((const uint8_t *)header, MDY_STORE_HEADER_BYTES);
        header[MDY_H_MAGIC] = 0;
        return erased ? MDY_BANK_EMPTY : MDY_BANK_DAMAGED;
    }
    if (header[MDY_H_FORMAT] != MDY_STORE_FORMAT) {
        return MDY_BANK_FORMAT;
    }
    const uint32_t body = header[MDY_H_BODY_BYTES];
    if (header[MDY_H_DIGEST] != m->model->digest || header[MDY_H_PAYLOAD_BYTES] - body != mdy_generation_bytes(m)) {
        return MDY_BANK_MODEL;
    }
    uint32_t rest = 0;
    for (uint32_t word = MDY_H_ZERO; word < MDY_H_ERASES; word++) {
        rest |= header[word];
    }
    const uint32_t room = m->banks[bank].bytes - MDY_STORE_HEADER_BYTES - mdy_generation_bytes(m);
    return rest != 0 || body % 4u != 0 || body > MDY_STORE_PAGE || body > room ? MDY_BANK_DAMAGED : MDY_BANK_USABLE;
}

/*
 * Reads the first `bytes` of a payload, its body, and adds them to *crc; what is missing is 0. The state that they leave
 * the bank in: MDY_BANK_USABLE, _DAMAGED (it cannot be read, or has an impossible value) or _FORMAT.
 */
static uint8_t read_body(const mdy_t *m, uint32_t bank, mdy_page_t *page, uint32_t bytes, uint32_t *crc)
{
    memset(page, 0, sizeof *page);
    if (mdy_store_read(m->flash, payload_address(m, bank), page->bytes, bytes) != MDY_OK) {
        return MDY_BANK_DAMAGED;
    }
    *crc = mdy_crc32(*crc, page->bytes, bytes);
    return mdy_generation_body(page);
}

/* What a bank holds. Without a whole header, header[MDY_H_MAGIC] is 0 afterwards. */
static mdy_found_t inspect(const mdy_t *m, mdy_page_t *page, uint32_t bank, uint32_t *header)
{
    mdy_found_t found = {0, 0, read_header(m, bank, header)};
    uint32_t crc = 0;
    int erased = 0;
    if (found.state == MDY_BANK_EMPTY) {
        const uint32_t bytes = MDY_STORE_BODY_BYTES + mdy_generation_bytes(m);
        const int clean = scan_payload(m, page, bank, 0, bytes, &crc, &erased) == MDY_OK && erased;
        found.state = clean ? MDY_BANK_EMPTY : MDY_BANK_UNFINISHED;
    } else if (found.state == MDY_BANK_USABLE) {
        const uint32_t body = header[MDY_H_BODY_BYTES];
        const uint8_t state = read_body(m, bank, page, body, &crc);
        const int whole = scan_payload(m, page, bank, body, header[MDY_H_PAYLOAD_BYTES], &crc, &erased) == MDY_OK &&
                          crc == header[MDY_H_PAYLOAD_CRC];
        found.state = whole ? state : MDY_BANK_DAMAGED;
    }
    if (header[MDY_H_MAGIC] == MDY_STORE_MAGIC) {
        found.generation = header[MDY_H_GENERATION];
        found.origin = header[found.state == MDY_BANK_FORMAT ? MDY_H_FORMAT : MDY_H_DIGEST];
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
    mdy_page_t page;
    const uint32_t bytes = MDY_STORE_HEADER_BYTES + MDY_STORE_BODY_BYTES + mdy_generation_bytes(m);
    int numbered = 0;
    m->bank = 1;
    m->generation = 0;
    if (mdy_banks_place(m->flash->geometry, bytes, m->banks) != MDY_OK) {
        return MDY_FLASH;
    }
    for (uint32_t bank = 0; bank < 2; bank++) {
        uint32_t header[MDY_STORE_WORDS] = {0};
        m->found[bank] = inspect(m, &page, bank, header);
        if (header[MDY_H_MAGIC] == MDY_STORE_MAGIC &&
            (!numbered || is_newer(header[MDY_H_GENERATION], m->generation))) {
            numbered = 1;
            m->bank = (uint8_t)bank;
            m->generation = header[MDY_H_GENERATION];
        }
        if (header[MDY_H_MAGIC] == MDY_STORE_MAGIC && header[MDY_H_FORMAT] == MDY_STORE_FORMAT) {
            m->erases[bank] = larger(m->erases[bank], header[MDY_H_ERASES]);
            m->erases[1u - bank] = larger(m->erases[1u - bank], header[MDY_H_OTHER_ERASES]);
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

uint32_t mdy_store_weights(const mdy_t *m)
{
    return payload_address(m, m->bank) + m->body_bytes + m->saved_bytes;
}

/* A bank is in use from now on. */
static void use_bank(mdy_t *m, uint32_t bank, uint32_t body_bytes, uint32_t number, uint32_t crc)
{
    m->bank = (uint8_t)bank;
    m->body_bytes = body_bytes;
    m->generation = number;
    m->payload_crc = crc;
    m->weights = m->flash->map(m->flash->context) + mdy_store_weights(m);
}

/* Copies the state to its region, and checks it and the weights that stay in flash. Errors: MDY_DAMAGED. */
static mdy_status_t load_bank(mdy_t *m, uint32_t bank)
{
    mdy_page_t page;
    uint32_t header[MDY_STORE_WORDS];
    uint32_t body[MDY_STORE_BODY_BYTES / 4u];
    uint32_t crc = 0;
    int erased;
    if (read_header(m, bank, header) != MDY_BANK_USABLE) {
        return MDY_DAMAGED;
    }
    const uint32_t state = header[MDY_H_BODY_BYTES];
    const uint8_t settings = read_body(m, bank, &page, state, &crc);
    memcpy(body, page.words, sizeof body);
    if (settings != MDY_BANK_USABLE ||
        mdy_store_read(m->flash, payload_address(m, bank) + state, m->state, m->saved_bytes) != MDY_OK) {
        return MDY_DAMAGED;
    }
    crc = mdy_crc32(crc, m->state, m->saved_bytes);
    if (scan_payload(m, &page, bank, state + m->saved_bytes, header[MDY_H_PAYLOAD_BYTES], &crc, &erased) != MDY_OK ||
        crc != header[MDY_H_PAYLOAD_CRC] || !mdy_generation_state_valid(m)) {
        return MDY_DAMAGED;
    }
    use_bank(m, bank, state, header[MDY_H_GENERATION], crc);
    m->epochs = header[MDY_H_EPOCHS];
    mdy_generation_take_body(m, body);
    return MDY_OK;
}

mdy_status_t mdy_store_reload(mdy_t *m)
{
    return m->weights == NULL ? MDY_EMPTY : load_bank(m, m->bank);
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

/* Remembers the sector that refused: the one with the byte at `address`. */
static mdy_status_t refused(mdy_t *m, uint32_t address)
{
    (void)mdy_flash_sector(m->flash->geometry, address, &m->fault);
    return MDY_FLASH;
}

/* Erases the sector that begins at *address, looks, and goes on to the next. Errors: MDY_FLASH, with m->fault. */
static mdy_status_t erase(mdy_t *m, mdy_page_t *page, uint32_t *address)
{
    uint32_t index;
    uint32_t crc = 0;
    const uint32_t first = *address;
    int erased = 0;
    *address += mdy_flash_sector(m->flash->geometry, first, &index);
    for (uint32_t tries = 0; tries < TRIES && !erased; tries++) {
        if (m->flash->erase(m->flash->context, first) != MDY_OK ||
            scan(m->flash, page, first, *address, &crc, &erased) != MDY_OK) {
            erased = 0;
        }
    }
    return erased ? MDY_OK : refused(m, first);
}

/* Programs the first n bytes of a page, whole units, and reads them back. Errors: MDY_FLASH, with m->fault. */
static mdy_status_t program(mdy_t *m, mdy_page_t *page, uint32_t address, uint32_t n)
{
    const uint32_t crc = mdy_crc32(0, page->bytes, n);
    const int done = m->flash->program(m->flash->context, address, page->bytes, n) == MDY_OK &&
                     mdy_store_read(m->flash, address, page->bytes, n) == MDY_OK && mdy_crc32(0, page->bytes, n) == crc;
    return done ? MDY_OK : refused(m, address);
}

/* Erases a bank. Errors: MDY_FLASH, with m->fault. */
static mdy_status_t erase_bank(mdy_t *m, mdy_page_t *page, uint32_t bank)
{
    uint32_t address = m->banks[bank].address;
    const uint32_t end = address + m->banks[bank].bytes;
    mdy_status_t status = MDY_OK;
    m->erases[bank] = mdy_count(m->erases[bank]);
    while (status == MDY_OK && address < end) {
        status = erase(m, page, &address);
    }
    return status;
}

/*
 * Makes bytes [start, start + n) of the next payload; n <= MDY_STORE_PAGE. What it is made of is read and goes into *source.
 * Errors: those of the port's read.
 */
static mdy_status_t fill_payload(const mdy_t *m, mdy_page_t *page, uint32_t start, uint32_t n, uint32_t *source)
{
    const uint32_t body = start < MDY_STORE_BODY_BYTES ? MDY_STORE_BODY_BYTES - start : 0;
    uint8_t *const model = page->bytes + body;
    const uint32_t first = start + body - MDY_STORE_BODY_BYTES;
    mdy_status_t status = MDY_OK;
    memset(page, 0xff, sizeof *page);
    if (m->weights != NULL) {
        status = mdy_store_read(m->flash, payload_address(m, m->bank) + m->body_bytes + first, model, n - body);
        *source = mdy_crc32(*source, model, n - body);
    }
    mdy_generation_fill(m, first, n - body, model);
    if (body > 0) {
        mdy_generation_fill_body(m, page->words);
    }
    return status;
}

/*
 * Programs the next payload page by page; its CRC comes back in *crc. Errors: MDY_FLASH, and MDY_DAMAGED where what it
 * was made of is not what was loaded.
 */
static mdy_status_t program_payload(mdy_t *m, mdy_page_t *page, uint32_t bank, uint32_t *crc)
{
    const uint32_t unit = m->flash->geometry->unit_bytes;
    const uint32_t n = MDY_STORE_BODY_BYTES + mdy_generation_bytes(m);
    uint32_t source = 0;
    *crc = 0;
    if (m->weights != NULL && read_body(m, m->bank, page, m->body_bytes, &source) != MDY_BANK_USABLE) {
        return MDY_DAMAGED;
    }
    for (uint32_t i = 0; i < n; i += MDY_STORE_PAGE) {
        const uint32_t part = n - i < MDY_STORE_PAGE ? n - i : MDY_STORE_PAGE;
        const uint32_t padded = (part + unit - 1) / unit * unit;
        if (fill_payload(m, page, i, part, &source) != MDY_OK) {
            return MDY_DAMAGED;
        }
        *crc = mdy_crc32(*crc, page->bytes, part);
        const mdy_status_t status = program(m, page, payload_address(m, bank) + i, padded);
        if (status != MDY_OK) {
            return status;
        }
    }
    return m->weights != NULL && source != m->payload_crc ? MDY_DAMAGED : MDY_OK;
}

/* Whether a bank's payload, with a body of so many bytes, has that CRC. */
static int has_payload(const mdy_t *m, mdy_page_t *page, uint32_t bank, uint32_t body_bytes, uint32_t crc)
{
    uint32_t seen = 0;
    int erased;
    const uint32_t bytes = body_bytes + mdy_generation_bytes(m);
    return scan_payload(m, page, bank, 0, bytes, &seen, &erased) == MDY_OK && seen == crc;
}

/* Programs the header of the next generation, whose payload is there. */
static mdy_status_t program_header(mdy_t *m, mdy_page_t *page, uint32_t bank, uint32_t number, uint32_t crc)
{
    uint32_t *header = page->words;
    memset(page, 0, sizeof *page);
    header[MDY_H_MAGIC] = MDY_STORE_MAGIC;
    header[MDY_H_FORMAT] = MDY_STORE_FORMAT;
    header[MDY_H_GENERATION] = number;
    header[MDY_H_DIGEST] = m->model->digest;
    header[MDY_H_PAYLOAD_BYTES] = MDY_STORE_BODY_BYTES + mdy_generation_bytes(m);
    header[MDY_H_PAYLOAD_CRC] = crc;
    header[MDY_H_EPOCHS] = mdy_count(m->epochs);
    header[MDY_H_BODY_BYTES] = MDY_STORE_BODY_BYTES;
    header[MDY_H_ERASES] = m->erases[bank];
    header[MDY_H_OTHER_ERASES] = m->erases[1u - bank];
    header[MDY_H_CRC] = mdy_crc32(0, header, 4u * MDY_H_CRC);
    return program(m, page, m->banks[bank].address, MDY_STORE_HEADER_BYTES);
}

/* Writes the next generation to an erased bank. Errors: MDY_FLASH, MDY_DAMAGED. */
static mdy_status_t write_bank(mdy_t *m, mdy_page_t *page, uint32_t bank, uint32_t number, uint32_t *crc)
{
    const mdy_status_t status = program_payload(m, page, bank, crc);
    if (status != MDY_OK) {
        return status;
    }
    return has_payload(m, page, bank, MDY_STORE_BODY_BYTES, *crc) ? program_header(m, page, bank, number, *crc)
                                                                  : MDY_FLASH;
}

mdy_status_t mdy_store_commit(mdy_t *m)
{
    mdy_page_t page;
    const uint32_t bank = 1u - m->bank;
    const uint32_t number = m->generation == UINT32_MAX ? 1 : m->generation + 1; /* 0 is none */
    uint32_t crc = 0;
    mdy_status_t status = MDY_FLASH;
    m->fault = MDY_NONE;
    if (m->weights != NULL && !has_payload(m, &page, m->bank, m->body_bytes, m->payload_crc)) {
        return MDY_DAMAGED; /* before the other bank, which may hold the last whole generation, is erased */
    }
    for (uint32_t tries = 0; tries < TRIES && status == MDY_FLASH; tries++) {
        status = erase_bank(m, &page, bank);
        if (status != MDY_OK) {
            return status;
        }
        status = write_bank(m, &page, bank, number, &crc);
    }
    if (status != MDY_OK) {
        return status;
    }
    m->fault = MDY_NONE;
    use_bank(m, bank, MDY_STORE_BODY_BYTES, number, crc);
    return MDY_OK;
}

/* Erases the first sector of a bank, header included. */
static mdy_status_t forget(mdy_t *m, mdy_page_t *page, uint32_t bank)
{
    uint32_t address = m->banks[bank].address;
    return erase(m, page, &address);
}

/* Looks at the banks anew: the bank of the newest usable generation. Errors: MDY_EMPTY, MDY_MODEL. */
static mdy_status_t find_newest(const mdy_t *m, mdy_page_t *page, uint32_t *bank)
{
    uint32_t header[MDY_STORE_WORDS];
    const mdy_found_t found[2] = {inspect(m, page, 0, header), inspect(m, page, 1, header)};
    return newest(found, bank);
}

mdy_status_t mdy_store_roll_back(mdy_t *m)
{
    mdy_page_t page;
    uint32_t bank = 0;
    m->fault = MDY_NONE;
    const mdy_status_t status = find_newest(m, &page, &bank);
    return status == MDY_OK ? forget(m, &page, bank) : status;
}

/* Erases every reserved sector; one that is dead does not save the others. */
static mdy_status_t wipe_all(mdy_t *m, mdy_page_t *page)
{
    mdy_status_t status = MDY_OK;
    for (uint32_t address = 0; address < mdy_flash_bytes(m->flash->geometry);) {
        const mdy_status_t erased = erase(m, page, &address);
        status = status == MDY_OK ? erased : status;
    }
    return status;
}

mdy_status_t mdy_store_reset(mdy_t *m, int wipe)
{
    mdy_page_t page;
    uint32_t last = 0;
    m->fault = MDY_NONE;
    (void)find_newest(m, &page, &last);
    mdy_status_t status = forget(m, &page, 1u - last); /* without power the newest still stands, or none */
    if (status == MDY_OK) {
        status = forget(m, &page, last);
    }
    const mdy_status_t wiped = wipe ? wipe_all(m, &page) : MDY_OK;
    return status == MDY_OK ? wiped : status;
}
