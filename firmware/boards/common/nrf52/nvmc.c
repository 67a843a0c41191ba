/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Flash controller (NVMC) of the nRF52840. Source: nRF52840 product specification, "NVMC".
 *
 * Pages of 4 KiB, words of 32 bits. The processor is halted while an operation runs, so that this code need not lie in
 * RAM. A word may be written twice between erases (nWRITE); the runtime writes it once.
 */
#include <string.h>

#include "cortex_m/core.h"

#define NVMC_READY MDY_REG(0x4001E400U)     /* 1: no operation runs */
#define NVMC_CONFIG MDY_REG(0x4001E504U)    /* what is allowed */
#define NVMC_ERASEPAGE MDY_REG(0x4001E508U) /* the address of a page */

#define CONFIG_READ 0U
#define CONFIG_WRITE 1U
#define CONFIG_ERASE 2U

#define PAGE_BYTES 4096U
#define ERASE_US (2000U * MDY_ERASE_MAX_MS)
#define PROGRAM_US (2U * MDY_PROGRAM_MAX_US)

/* Allows one kind of operation, or none. Errors: MDY_FLASH. */
static mdy_status_t allow(uint32_t what)
{
    if (!mdy_wait(&NVMC_READY, 1U, 1U, ERASE_US)) {
        return MDY_FLASH;
    }
    NVMC_CONFIG = what;
    mdy_barrier();
    return (NVMC_CONFIG & 3U) == what ? MDY_OK : MDY_FLASH;
}

static mdy_status_t finish(uint32_t us)
{
    mdy_barrier();
    return mdy_wait(&NVMC_READY, 1U, 1U, us) ? MDY_OK : MDY_FLASH;
}

/* The controller has no error flags: what it does not allow gives a bus fault or is ignored, and the runtime reads
 * back what it wrote. */
mdy_status_t mdy_part_read(uint32_t address, void *dst, uint32_t n)
{
    memcpy(dst, (const void *)(uintptr_t)address, n);
    return MDY_OK;
}

mdy_status_t mdy_part_erase(uint32_t address)
{
    if (address % PAGE_BYTES != 0U) {
        return MDY_ARGUMENT;
    }
    mdy_status_t status = allow(CONFIG_ERASE);
    if (status == MDY_OK) {
        NVMC_ERASEPAGE = address;
        status = finish(ERASE_US);
    }
    const mdy_status_t closed = allow(CONFIG_READ);
    return status != MDY_OK ? status : closed;
}

mdy_status_t mdy_part_program(uint32_t address, const uint8_t *src, uint32_t n)
{
    mdy_status_t status = allow(CONFIG_WRITE);
    for (uint32_t i = 0; i < n && status == MDY_OK; i += 4U) {
        uint32_t word;
        memcpy(&word, &src[i], sizeof word);
        MDY_REG(address + i) = word;
        status = finish(PROGRAM_US);
    }
    const mdy_status_t closed = allow(CONFIG_READ);
    return status != MDY_OK ? status : closed;
}
