/* SPDX-License-Identifier: Apache-2.0 */
/* The generated model over the emulated flash of its project, with faults where a test wants them. */
#include <string.h>

#include "flash_emu.h"
#include "flash_geometry.h"
#include "mdy/mdy.h"
#include "mdy_model.h"

#define IMAGE_BYTES MDY_FLASH_EMU_IMAGE_BYTES(MDY_FLASH_BYTES, MDY_FLASH_UNIT_BYTES, MDY_FLASH_SECTORS)

static const mdy_flash_run_t runs[] = {MDY_FLASH_RUNS};
static const mdy_flash_geometry_t geometry = {runs, sizeof runs / sizeof runs[0], MDY_FLASH_UNIT_BYTES};

/* What survives a cut, and what a cut takes away. */
typedef struct {
    _Alignas(32) uint8_t image[IMAGE_BYTES];
    _Alignas(8) uint8_t planned[MDY_MODEL_PLANNED_BYTES];
    _Alignas(8) uint8_t epoch[MDY_MODEL_EPOCH_BYTES + 8];
    _Alignas(8) uint8_t state[MDY_MODEL_STATE_BYTES];
    mdy_t net;
} machine_t;

/* What a generation is made of. */
typedef struct {
    uint32_t generation, epochs, steps, state_bytes, weight_bytes, bank;
    const uint8_t *state, *weights;
} arrays_t;

/* Fields of the emulator. */
typedef struct {
    uint32_t cut_at, cut_phase, fail_at, fail_count, lie_at, lie_count, lie, dead_address, dead_bytes, read_fail_at,
        read_fail_count, read_lie_at, flip_at, flip_address, flip_bit, seed;
} faults_t;

static machine_t now;
static machine_t kept;
static mdy_flash_emu_t emu = {.geometry = &geometry, .image = now.image};
static const mdy_flash_t flash = {
    &geometry, &emu, mdy_flash_emu_read, mdy_flash_emu_erase, mdy_flash_emu_program, mdy_flash_emu_map};

void cut_probe_format(void)
{
    mdy_flash_emu_format(&emu);
    mdy_flash_emu_reboot(&emu);
}

/* Starts on memory that holds rubbish, under what is armed. */
static int boot(int fresh)
{
    const mdy_config_t config = {
        .flash = &flash,
        .seed = 5,
        .schedule = {.rate_mult = 20000, .rate_exponent = -16, .cosine = 1, .total_steps = 4000, .clip = 0x2400},
        .flip = 1,
        .fresh = (uint8_t)fresh,
    };
    const mdy_memory_t memory = {
        {now.planned, sizeof now.planned}, {now.epoch, sizeof now.epoch}, {now.state, sizeof now.state}};
    memset(now.planned, 0xa5, sizeof now.planned);
    memset(now.epoch, 0xa5, sizeof now.epoch);
    memset(now.state, 0xa5, sizeof now.state);
    return (int)mdy_init(&now.net, &mdy_model, &memory, &config);
}

/* Power comes back: memory is lost, the flash stays, and with it the part that cannot be read. */
int cut_probe_boot(int fresh, uint32_t bad_address, uint32_t bad_bytes)
{
    mdy_flash_emu_reboot(&emu);
    emu.bad_address = bad_address;
    emu.bad_bytes = bad_bytes;
    return boot(fresh);
}

int cut_probe_step(const int8_t *sample, int label)
{
    mdy_result_t result = {0, 0};
    memcpy(mdy_input(&now.net), sample, MDY_MODEL_INPUT_BYTES);
    return (int)mdy_train_step(&now.net, (uint16_t)label, &result);
}

static int end_epoch(uint32_t *operations)
{
    const int status = (int)mdy_end_epoch(&now.net);
    *operations = emu.operations;
    return status;
}

/* Ends the epoch with the power cut at operation `at` (0: never); *operations: how many were begun. */
int cut_probe_end_epoch(uint32_t at, int phase, uint32_t seed, uint32_t *operations)
{
    mdy_flash_emu_reboot(&emu);
    emu.cut_at = at;
    emu.cut_phase = (mdy_cut_phase_t)phase;
    emu.seed = seed;
    return end_epoch(operations);
}

/* Ends the epoch while `count` operations from `at` on fail; the power stays. */
int cut_probe_end_epoch_failing(uint32_t at, uint32_t count, uint32_t seed, uint32_t *operations)
{
    mdy_flash_emu_reboot(&emu);
    emu.fail_at = at;
    emu.fail_count = count;
    emu.seed = seed;
    return end_epoch(operations);
}

/* The flash works again; memory stays. */
void cut_probe_reboot_flash(void)
{
    mdy_flash_emu_reboot(&emu);
}

/* Arms what the next call of the runtime is to meet; see the fields of flash_emu.h. Counts start again. */
void cut_probe_arm(const faults_t *faults)
{
    mdy_flash_emu_reboot(&emu);
    emu.cut_at = faults->cut_at;
    emu.cut_phase = (mdy_cut_phase_t)faults->cut_phase;
    emu.fail_at = faults->fail_at;
    emu.fail_count = faults->fail_count;
    emu.lie_at = faults->lie_at;
    emu.lie_count = faults->lie_count;
    emu.lie = (mdy_lie_t)faults->lie;
    emu.dead_address = faults->dead_address;
    emu.dead_bytes = faults->dead_bytes;
    emu.read_fail_at = faults->read_fail_at;
    emu.read_fail_count = faults->read_fail_count;
    emu.read_lie_at = faults->read_lie_at;
    emu.flip_at = faults->flip_at;
    emu.flip_address = faults->flip_address;
    emu.flip_bit = faults->flip_bit;
    emu.seed = faults->seed;
}

/* Calls of the runtime under what is armed. */
int cut_probe_commit(void)
{
    return (int)mdy_end_epoch(&now.net);
}

int cut_probe_reset(int wipe)
{
    return (int)mdy_factory_reset(&now.net, wipe);
}

int cut_probe_start(void)
{
    return boot(0);
}

/* Operations begun, reads, calls of all kinds since the last boot or arming. */
void cut_probe_counts(uint32_t *counts)
{
    counts[0] = emu.operations;
    counts[1] = emu.reads;
    counts[2] = emu.calls;
}

/* The sector that refused. */
uint32_t cut_probe_fault(void)
{
    return now.net.fault;
}

/* What a long training would have counted. */
void cut_probe_count(uint32_t epochs, uint32_t steps, uint32_t epoch_step, uint32_t generation, uint32_t erases)
{
    now.net.epochs = epochs;
    now.net.steps = steps;
    now.net.epoch_step = epoch_step;
    now.net.generation = generation;
    now.net.erases[0] = now.net.erases[1] = erases;
}

/* epochs, steps, epoch_step, generation, erases of both banks. */
void cut_probe_counted(uint32_t *words)
{
    const mdy_t *m = &now.net;
    const uint32_t counted[] = {m->epochs, m->steps, m->epoch_step, m->generation, m->erases[0], m->erases[1]};
    memcpy(words, counted, sizeof counted);
}

/* Forgets the newest generation, with the power cut in the middle of it where `cut` says so. */
int cut_probe_roll_back(int cut, uint32_t seed)
{
    mdy_flash_emu_reboot(&emu);
    emu.cut_at = cut ? 1 : 0;
    emu.cut_phase = MDY_CUT_INSIDE;
    emu.seed = seed;
    return (int)mdy_roll_back(&now.net);
}

void cut_probe_arrays(arrays_t *arrays)
{
    const mdy_t *m = &now.net;
    *arrays = (arrays_t){m->generation, m->epochs, m->steps,  m->saved_bytes, m->model->bank_weight_bytes,
                         m->bank,       m->state,  m->weights};
}

/* state, generation and origin of a bank as it was found, and the erases that headers tell of. */
void cut_probe_found(uint32_t bank, uint32_t *words)
{
    const mdy_found_t *found = &now.net.found[bank];
    words[0] = found->state;
    words[1] = found->generation;
    words[2] = found->origin;
    words[3] = now.net.erases[bank];
}

void cut_probe_bank(uint32_t bank, uint32_t *address, uint32_t *bytes)
{
    *address = now.net.banks[bank].address;
    *bytes = now.net.banks[bank].bytes;
}

uint32_t cut_probe_erases(uint32_t sector)
{
    return mdy_flash_emu_erases(&emu, sector);
}

uint8_t *cut_probe_flash(void)
{
    return now.image;
}

void cut_probe_keep(void)
{
    memcpy(&kept, &now, sizeof now);
}

void cut_probe_restore(void)
{
    memcpy(&now, &kept, sizeof now);
}
