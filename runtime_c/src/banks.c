/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/banks.h"

uint32_t mdy_flash_bytes(const mdy_flash_geometry_t *flash)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < flash->run_count; i++) {
        bytes += flash->runs[i].count * flash->runs[i].bytes;
    }
    return bytes;
}

uint32_t mdy_flash_sector(const mdy_flash_geometry_t *flash, uint32_t address, uint32_t *index)
{
    *index = 0;
    for (uint32_t i = 0; i < flash->run_count; i++) {
        const mdy_flash_run_t *run = &flash->runs[i];
        if (address < run->count * run->bytes) {
            *index += address / run->bytes;
            return address % run->bytes == 0 ? run->bytes : 0;
        }
        *index += run->count;
        address -= run->count * run->bytes;
    }
    return 0;
}

mdy_status_t mdy_banks_place(const mdy_flash_geometry_t *flash, uint32_t generation_bytes, mdy_bank_t banks[2])
{
    uint32_t bank = 0;
    banks[0] = banks[1] = (mdy_bank_t){0, 0};
    for (uint32_t i = 0; i < flash->run_count; i++) {
        const mdy_flash_run_t *run = &flash->runs[i];
        for (uint32_t left = run->count; left > 0 && bank < 2;) {
            const uint32_t wanted = (generation_bytes - banks[bank].bytes + run->bytes - 1) / run->bytes;
            const uint32_t taken = wanted < left ? wanted : left;
            banks[bank].bytes += taken * run->bytes;
            left -= taken;
            if (banks[bank].bytes >= generation_bytes) {
                bank++;
                banks[1].address = banks[0].bytes;
            }
        }
    }
    return bank == 2 ? MDY_OK : MDY_FLASH;
}
