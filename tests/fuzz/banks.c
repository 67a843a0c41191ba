/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Banks whose bytes are the input's and whose checksums fit, and settings that are: mdy_init, some steps, a commit,
 * another start and a reset. The sanitizers watch; what was committed must be what the next start finds.
 */
#include "machine.h"

enum { RAW = 1, OTHER_BANK = 2, FRESH = 4, WIPE = 8 };

static void put_word(uint8_t *at, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

/* Writes the input over a bank: each piece is a place, a length and its bytes. Then identity and checksums that fit. */
static void overwrite(input_t *in, const mdy_bank_t *bank, uint32_t payload_bytes, int raw)
{
    uint8_t *const at = image + bank->address;
    const uint32_t bytes = MDY_STORE_HEADER_BYTES + payload_bytes;
    for (uint32_t pieces = take(in, 1); pieces > 0 && in->left > 0; pieces--) {
        const uint32_t place = take(in, 2) % bytes;
        const uint32_t most = take(in, 1);
        for (uint32_t i = 0; i < most && place + i < bytes && in->left > 0; i++) {
            at[place + i] = (uint8_t)take(in, 1);
        }
    }
    if (!raw) {
        memcpy(at, trained + bank->address, 8); /* magic and format */
        put_word(at + 12, mdy_model.digest);
        put_word(at + 16, payload_bytes);
        put_word(at + 28, MDY_STORE_BODY_BYTES);
        memset(at + 32, 0, 20);
        put_word(at + 20, mdy_crc32(0, at + MDY_STORE_HEADER_BYTES, payload_bytes));
        put_word(at + 60, mdy_crc32(0, at, 60));
    }
}

static mdy_config_t settings(input_t *in, int fresh)
{
    const mdy_config_t config = {
        .flash = &flash,
        .seed = take(in, 4),
        .schedule = {.rate_mult = take(in, 4),
                     .rate_exponent = (int32_t)take(in, 4),
                     .cosine = take(in, 1),
                     .warmup_steps = take(in, 4),
                     .total_steps = take(in, 4),
                     .clip = (uint16_t)take(in, 2)},
        .head_only = (uint8_t)take(in, 1),
        .flip = (uint8_t)take(in, 1),
        .fresh = (uint8_t)fresh,
        .load = load_row,
    };
    return config;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    train_once();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mdy_t net, again;
    static uint8_t saved[MDY_MODEL_STATE_BYTES + 8];
    const mdy_config_t usual = {
        .schedule = {.rate_mult = 20000, .rate_exponent = -16}, .load = load_row, .flash = &flash};
    input_t in = {data, size};
    const uint32_t mode = take(&in, 1);
    const mdy_config_t given = settings(&in, 0);
    mdy_config_t config = mode & RAW ? usual : given;
    config.fresh = (mode & FRESH) != 0;

    memcpy(image, trained, sizeof image);
    mdy_flash_emu_reboot(&emu);
    check(mdy_init(&net, &mdy_model, &memory, &usual) == MDY_OK);
    const uint32_t payload_bytes = MDY_STORE_BODY_BYTES + net.saved_bytes + mdy_model.bank_weight_bytes;
    overwrite(&in, &net.banks[mode & OTHER_BANK ? 1 : 0], payload_bytes, (mode & RAW) != 0);
    overwrite(&in, &net.banks[mode & OTHER_BANK ? 0 : 1], payload_bytes, (mode & RAW) != 0);

    mdy_status_t status = mdy_init(&net, &mdy_model, &memory, &config);
    check(status == MDY_OK || status == MDY_ARGUMENT || status == MDY_MODEL);
    if (status != MDY_OK) {
        check(status != MDY_ARGUMENT || !(mode & RAW));
        config = usual;
        config.fresh = 1;
        check(mdy_init(&net, &mdy_model, &memory, &config) == MDY_OK);
    }
    for (uint32_t number = 0; number < 3; number++) {
        check(use_sample(&net, number, number != 1) == MDY_OK);
    }
    status = mdy_end_epoch(&net);
    check(status == MDY_OK);
    check(use_sample(&net, 6, 1) == MDY_OK);
    check(mdy_end_epoch(&net) == MDY_OK);
    memcpy(saved, state, net.saved_bytes);
    check(mdy_init(&again, &mdy_model, &memory, &usual) == MDY_OK);
    check(again.generation == net.generation && again.epochs == net.epochs && again.steps == net.steps);
    check(memcmp(saved, state, net.saved_bytes) == 0);
    check(mdy_factory_reset(&again, (mode & WIPE) != 0) == MDY_OK);
    check(mdy_init(&again, &mdy_model, &memory, &usual) == MDY_OK && again.weights == NULL);
    return 0;
}
