/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Flash controller of the STM32H743. Source: RM0433, 4.3 (operations) and 4.9 (registers).
 *
 * Two banks of 1 MiB with their own registers, sectors of 128 KiB, flash words of 256 bits with an error correction
 * code: a word is programmed whole and once. A read of a word that was torn by a power cut gives a bus fault. A fetch
 * from the bank at work stalls; code in the other one runs on.
 */
#include <string.h>

#include "cortex_m/core.h"

#define FLASH_BASE 0x08000000U
#define BANK_BYTES 0x00100000U
#define SECTOR_BYTES 0x00020000U
#define WORD_BYTES 32U

/* 4.9: the registers of bank 2 lie 0x100 behind those of bank 1. */
#define BANK_OF(address) (((address) - FLASH_BASE) / BANK_BYTES)
#define REGISTERS(address) (0x52002000U + 0x100U * BANK_OF(address))
#define FLASH_KEYR(address) MDY_REG(REGISTERS(address) + 0x04U)
#define FLASH_CR(address) MDY_REG(REGISTERS(address) + 0x0CU)
#define FLASH_SR(address) MDY_REG(REGISTERS(address) + 0x10U)
#define FLASH_CCR(address) MDY_REG(REGISTERS(address) + 0x14U)

#define KEY1 0x45670123U /* 4.5.1 */
#define KEY2 0xCDEF89ABU

#define CR_LOCK (1U << 0)
#define CR_PG (1U << 1)
#define CR_SER (1U << 2)
#define CR_PSIZE_64 (3U << 4)
#define CR_START (1U << 7)
#define CR_SNB(n) ((n) << 8)

#define SR_BUSY 0x00000007U    /* BSY, WBNE, QW */
#define SR_REFUSED 0x006E0000U /* WRPERR, PGSERR, STRBERR, INCERR, OPERR */
#define SR_DBECCERR (1U << 26) /* two bits of a flash word were wrong */

#define ERASE_US (2000U * MDY_ERASE_MAX_MS)
#define PROGRAM_US (2U * MDY_PROGRAM_MAX_US)

/* Unlocks the bank's registers for one kind of operation. Errors: MDY_FLASH. */
static mdy_status_t begin(uint32_t address, uint32_t operation)
{
    if (!mdy_wait(&FLASH_SR(address), SR_BUSY, 0, ERASE_US)) {
        return MDY_FLASH;
    }
    if ((FLASH_CR(address) & CR_LOCK) != 0U) {
        FLASH_KEYR(address) = KEY1;
        FLASH_KEYR(address) = KEY2;
    }
    FLASH_CCR(address) = SR_REFUSED; /* of earlier operations */
    FLASH_CR(address) = operation;
    return FLASH_CR(address) == operation ? MDY_OK : MDY_FLASH;
}

/* Waits for the end of one operation. Errors: MDY_FLASH. */
static mdy_status_t finish(uint32_t address, uint32_t us)
{
    mdy_barrier();
    return mdy_wait(&FLASH_SR(address), SR_BUSY, 0, us) && (FLASH_SR(address) & SR_REFUSED) == 0U ? MDY_OK : MDY_FLASH;
}

/* Locks again, and drops what the data cache holds of what was there before. */
static void end(uint32_t address, uint32_t n)
{
    FLASH_CCR(address) = SR_REFUSED;
    FLASH_CR(address) = CR_LOCK;
    mdy_forget_cached(address, n);
}

/* At the priority of a HardFault, where a bus fault of data is noted and ignored (Armv7-M ARM, B1.5.14). */
mdy_status_t mdy_part_read(uint32_t address, void *dst, uint32_t n)
{
    uint32_t was;
    __asm__ volatile("mrs %0, faultmask\n\tcpsid f" : "=r"(was)::"memory");
    FLASH_CCR(address) = SR_DBECCERR;
    SCB_CFSR = SCB_CFSR_BUS; /* written 1 to clear */
    SCB_CCR |= SCB_CCR_BFHFNMIGN;
    mdy_barrier();
    memcpy(dst, (const void *)(uintptr_t)address, n);
    mdy_barrier();
    SCB_CCR &= ~SCB_CCR_BFHFNMIGN;
    const bool is_torn = (SCB_CFSR & SCB_CFSR_BUS_DATA) != 0U || (FLASH_SR(address) & SR_DBECCERR) != 0U;
    SCB_CFSR = SCB_CFSR_BUS;
    FLASH_CCR(address) = SR_DBECCERR;
    __asm__ volatile("msr faultmask, %0" ::"r"(was) : "memory");
    return is_torn ? MDY_FLASH : MDY_OK;
}

mdy_status_t mdy_part_erase(uint32_t address)
{
    const uint32_t sector = (address - FLASH_BASE) % BANK_BYTES / SECTOR_BYTES;
    mdy_status_t status = begin(address, CR_PSIZE_64 | CR_SER | CR_SNB(sector));
    if (status == MDY_OK) {
        FLASH_CR(address) |= CR_START;
        status = finish(address, ERASE_US);
    }
    end(address, SECTOR_BYTES);
    return status;
}

mdy_status_t mdy_part_program(uint32_t address, const uint8_t *src, uint32_t n)
{
    mdy_status_t status = begin(address, CR_PSIZE_64 | CR_PG);
    for (uint32_t i = 0; i < n && status == MDY_OK; i += WORD_BYTES) {
        uint32_t word[WORD_BYTES / 4U];
        memcpy(word, &src[i], sizeof word);
        for (uint32_t k = 0; k < WORD_BYTES / 4U; k++) {
            MDY_REG(address + i + 4U * k) = word[k]; /* with the last one the operation begins */
        }
        status = finish(address, PROGRAM_US);
    }
    end(address, n);
    return status;
}
