/* SPDX-License-Identifier: Apache-2.0 */
/* The generated model over the emulated flash, with the power cut where a test wants it. */
#include <string.h>

#include "flash_emu.h"
#include "mdy/mdy.h"
#include "mdy_model.h"

#define FLASH_BYTES (1u << 17)
#define UNIT_BYTES 8u

const mdy_flash_geometry_t mdy_port_flash = {FLASH_BYTES, 4096, UNIT_BYTES};

/* What survives a cut, and what a cut takes away. */
typedef struct {
    uint8_t memory[FLASH_BYTES];
    uint8_t marks[MDY_FLASH_EMU_MARK_BYTES(FLASH_BYTES, UNIT_BYTES)];
    _Alignas(8) uint8_t planned[MDY_MODEL_PLANNED_BYTES];
    _Alignas(8) uint8_t epoch[MDY_MODEL_EPOCH_BYTES];
    _Alignas(8) uint8_t state[MDY_MODEL_STATE_BYTES];
    mdy_t net;
} machine_t;

/* What a generation is made of. */
typedef struct {
    uint32_t generation, epochs, state_bytes, weight_bytes;
    const uint8_t *state, *weights;
} arrays_t;

static _Alignas(32) machine_t now;
static machine_t kept;
static uint32_t erases[FLASH_BYTES / 4096];
static mdy_flash_emu_t emu = {
    .geometry = &mdy_port_flash, .memory = now.memory, .marks = now.marks, .erases = erases};

mdy_status_t mdy_port_flash_read(uint32_t address, void *dst, uint32_t n)
{
    return mdy_flash_emu_read(&emu, address, dst, n);
}

mdy_status_t mdy_port_flash_erase(uint32_t address)
{
    return mdy_flash_emu_erase(&emu, address);
}

mdy_status_t mdy_port_flash_program(uint32_t address, const void *src, uint32_t n)
{
    return mdy_flash_emu_program(&emu, address, src, n);
}

const uint8_t *mdy_port_flash_map(void)
{
    return now.memory;
}

void cut_probe_format(void)
{
    mdy_flash_emu_format(&emu);
    mdy_flash_emu_reboot(&emu);
}

/* Power comes back: memory is lost, the flash stays. */
int cut_probe_boot(int fresh)
{
    const mdy_config_t config = {
        .seed = 5, .schedule = {.rate_mult = 20000, .rate_exponent = -20}, .fresh = (uint8_t)fresh};
    const mdy_memory_t memory = {
        {now.planned, sizeof now.planned}, {now.epoch, sizeof now.epoch}, {now.state, sizeof now.state}};
    mdy_flash_emu_reboot(&emu);
    memset(now.planned, 0xa5, sizeof now.planned);
    memset(now.epoch, 0xa5, sizeof now.epoch);
    memset(now.state, 0xa5, sizeof now.state);
    return (int)mdy_init(&now.net, &mdy_model, &memory, &config);
}

int cut_probe_step(const int8_t *sample, int label)
{
    mdy_result_t result = {0, 0};
    memcpy(mdy_input(&now.net), sample, MDY_MODEL_INPUT_BYTES);
    return (int)mdy_train_step(&now.net, (uint16_t)label, &result);
}

/* Ends the epoch with the power cut at operation `at` (0: never); *operations: how many were begun. */
int cut_probe_end_epoch(uint32_t at, int phase, uint32_t *operations)
{
    mdy_flash_emu_reboot(&emu);
    emu.cut_at = at;
    emu.cut_phase = (mdy_cut_phase_t)phase;
    const int status = (int)mdy_end_epoch(&now.net);
    *operations = emu.operations;
    return status;
}

void cut_probe_arrays(arrays_t *arrays)
{
    const mdy_t *m = &now.net;
    *arrays = (arrays_t){m->generation, m->epochs, m->saved_bytes, m->model->bank_weight_bytes, m->state, m->weights};
}

void cut_probe_keep(void)
{
    memcpy(&kept, &now, sizeof now);
}

void cut_probe_restore(void)
{
    memcpy(&now, &kept, sizeof now);
}
