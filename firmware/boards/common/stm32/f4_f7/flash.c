/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Flash controller of the STM32F4 and F7. Sources: RM0090, 3.6 and 3.9; RM0385, 3.3 and 3.7.
 *
 * By words (PSIZE x32: 2.7 V at least). A fetch from flash stalls while an operation runs, so that this code need not
 * lie in RAM. MDY_SMALL_SECTOR: bytes of the first four sectors; one of four times as many follows, then of eight times.
 */
#include <string.h>

#include "stm32/f4_f7/f4_f7.h"

#define FLASH_BASE 0x08000000U

#define FLASH_KEYR MDY_REG(0x40023C04U) /* 3.9.2 */
#define FLASH_SR MDY_REG(0x40023C0CU)   /* 3.9.4 */
#define FLASH_CR MDY_REG(0x40023C10U)   /* 3.9.5 */

#define KEY1 0x45670123U /* 3.6.1 */
#define KEY2 0xCDEF89ABU

#define SR_ERRORS 0x000000F2U /* OPERR, WRPERR, PGAERR, PGPERR, PGSERR (F7: ERSERR); written 1 to clear */
#define SR_BSY (1U << 16)
#define CR_PG (1U << 0)
#define CR_SER (1U << 1)
#define CR_SNB(n) ((n) << 3)
#define CR_PSIZE_32 (2U << 8)
#define CR_STRT (1U << 16)
#define CR_LOCK (1U << 31)

#define ACR_DCEN (1U << 10) /* 3.9.1: data cache of the F4's flash interface; reserved on the F7 */
#define ACR_DCRST (1U << 12)

#define ERASE_US (2000U * MDY_ERASE_MAX_MS)
#define PROGRAM_US (2U * MDY_PROGRAM_MAX_US)

/* 3.4, table 5. */
static uint32_t sector_of(uint32_t address)
{
    const uint32_t offset = address - FLASH_BASE;
    if (offset < 8U * MDY_SMALL_SECTOR) {
        return offset < 4U * MDY_SMALL_SECTOR ? offset / MDY_SMALL_SECTOR : 4U;
    }
    return 4U + offset / (8U * MDY_SMALL_SECTOR);
}

static uint32_t sector_bytes(uint32_t sector)
{
    return sector < 4U ? MDY_SMALL_SECTOR : sector == 4U ? 4U * MDY_SMALL_SECTOR : 8U * MDY_SMALL_SECTOR;
}

/* Unlocks the controller for one kind of operation. Errors: MDY_FLASH. */
static mdy_status_t begin(uint32_t operation)
{
    if (!mdy_wait(&FLASH_SR, SR_BSY, 0, ERASE_US)) {
        return MDY_FLASH;
    }
    if ((FLASH_CR & CR_LOCK) != 0U) {
        FLASH_KEYR = KEY1;
        FLASH_KEYR = KEY2;
    }
    FLASH_SR = SR_ERRORS; /* of earlier operations: they would block this one */
    FLASH_CR = operation;
    return FLASH_CR == operation ? MDY_OK : MDY_FLASH;
}

/* Waits for the end of one operation. Errors: MDY_FLASH. */
static mdy_status_t finish(uint32_t us)
{
    mdy_barrier();
    return mdy_wait(&FLASH_SR, SR_BSY, 0, us) && (FLASH_SR & SR_ERRORS) == 0U ? MDY_OK : MDY_FLASH;
}

/* Locks again, and drops what caches hold of what was there before. 3.9.1: reset while the cache is off. */
static void end(uint32_t address, uint32_t n)
{
    FLASH_SR = SR_ERRORS;
    FLASH_CR = CR_LOCK;
#if MDY_HAS_DATA_CACHE
    mdy_forget_cached(address, n);
#else
    (void)address;
    (void)n;
    const uint32_t access = FLASH_ACR;
    FLASH_ACR = access & ~ACR_DCEN;
    FLASH_ACR = (access & ~ACR_DCEN) | ACR_DCRST;
    FLASH_ACR = access & ~ACR_DCEN;
    FLASH_ACR = access;
#endif
}

mdy_status_t mdy_part_read(uint32_t address, void *dst, uint32_t n)
{
    memcpy(dst, (const void *)(uintptr_t)address, n);
    return MDY_OK;
}

mdy_status_t mdy_part_erase(uint32_t address)
{
    const uint32_t sector = sector_of(address);
    mdy_status_t status = begin(CR_PSIZE_32 | CR_SER | CR_SNB(sector));
    if (status == MDY_OK) {
        FLASH_CR |= CR_STRT;
        status = finish(ERASE_US);
    }
    end(address, sector_bytes(sector));
    return status;
}

mdy_status_t mdy_part_program(uint32_t address, const uint8_t *src, uint32_t n)
{
    mdy_status_t status = begin(CR_PSIZE_32 | CR_PG);
    for (uint32_t i = 0; i < n && status == MDY_OK; i += 4U) {
        uint32_t word;
        memcpy(&word, &src[i], sizeof word);
        MDY_REG(address + i) = word;
        status = finish(PROGRAM_US);
    }
    end(address, n);
    return status;
}
