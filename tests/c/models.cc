// SPDX-License-Identifier: Apache-2.0
// A C++ application with one model or two, each with flash and memory of its own, that train in turn.
// It prints through semihosting on a Cortex-M, where there is no C library to print with.
#include <stdint.h>
#ifndef __arm__
#include <cstdio>
#endif

#include "flash_emu.h"
#include "mdy/crc.h"
#include "mdy/mdy.h"
#include "mdy/rng.h"

#ifdef WITH_FIRST
#include "first_model.h"
#endif
#ifdef WITH_SECOND
#include "second_model.h"
#endif

namespace
{

constexpr uint32_t sectors = 64, sector_bytes = 4096, unit_bytes = 8;
const mdy_flash_run_t runs[] = {{sectors, sector_bytes}};
const mdy_flash_geometry_t geometry = {runs, 1, unit_bytes};

void put(char letter)
{
#ifdef __arm__
    register uint32_t r0 __asm__("r0") = 3; // SYS_WRITEC
    register const char *r1 __asm__("r1") = &letter;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
#else
    std::putchar(letter);
#endif
}

void put_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4) {
        put("0123456789abcdef"[value >> shift & 15u]);
    }
}

struct Trained {
    alignas(32) uint8_t image[MDY_FLASH_EMU_IMAGE_BYTES(sectors * sector_bytes, unit_bytes, sectors)];
    mdy_flash_emu_t emulator;
    mdy_flash_t flash;
    mdy_t net;
    uint32_t steps;

    bool start(const mdy_model_t &model, const mdy_memory_t &memory, uint32_t seed)
    {
        emulator.geometry = &geometry;
        emulator.image = image;
        mdy_flash_emu_format(&emulator);
        flash = {&geometry,        &emulator, mdy_flash_emu_read, mdy_flash_emu_erase, mdy_flash_emu_program,
                 mdy_flash_emu_map};
        mdy_config_t config{};
        config.flash = &flash;
        config.seed = seed;
        config.schedule.rate_mult = 20000;
        config.schedule.rate_exponent = -16;
        return mdy_init(&net, &model, &memory, &config) == MDY_OK;
    }

    bool step()
    {
        mdy_result_t result{};
        int8_t *const input = mdy_input(&net);
        const uint32_t bytes = mdy_tensor_bytes(&net.model->input);
        for (uint32_t i = 0; i < bytes; i++) {
            input[i] = static_cast<int8_t>(mdy_rng(steps, i));
        }
        const auto label = static_cast<uint16_t>(steps++ % mdy_classes(net.model));
        return mdy_train_step(&net, label, &result) == MDY_OK && (steps % 8 != 0 || mdy_end_epoch(&net) == MDY_OK);
    }

    void print(const char *name) const
    {
        for (; *name != '\0'; name++) {
            put(*name);
        }
        const uint32_t digests[] = {net.loss_crc, net.selection_crc, mdy_crc32(0, net.state, net.saved_bytes),
                                    mdy_crc32(0, image, sizeof image)};
        for (const uint32_t digest : digests) {
            put(' ');
            put_hex(digest);
        }
        put('\n');
    }
};

#ifdef WITH_FIRST
Trained first;
#endif
#ifdef WITH_SECOND
Trained second;
#endif

} // namespace

int main()
{
    bool right = true;
#ifdef WITH_FIRST
    right = right && first.start(first_model, first_memory, 3);
#endif
#ifdef WITH_SECOND
    right = right && second.start(second_model, second_memory, 4);
#endif
    for (int i = 0; i < 24 && right; i++) {
#ifdef WITH_FIRST
        right = right && first.step();
#endif
#ifdef WITH_SECOND
        right = right && second.step();
#endif
    }
#ifdef WITH_FIRST
    first.print("first");
#endif
#ifdef WITH_SECOND
    second.print("second");
#endif
    return right ? 0 : 1;
}
