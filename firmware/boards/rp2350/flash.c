/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Flash of an RP2350: a QSPI chip, through the boot ROM. Sections: RP2350 data sheet.
 *
 * While the ROM erases or programs, nothing can be fetched from flash: the code around its calls lies in RAM,
 * interrupts are masked and the other core is parked. Sectors of 4 KiB, pages of 256 bytes; what is not to change in a
 * page is programmed as 0xFF, which leaves bits as they are. The ROM waits for the chip without a limit.
 */
#include <string.h>

#include "cortex_m/core.h"

#define SECTOR_BYTES 4096U
#define PAGE_BYTES 256U

/* 5.4.1: a pointer of 16 bits to the function that looks others up; 5.4.6: their codes. */
#define ROM_LOOKUP 0x00000016U
#define ROM_ARM_SECURE 0x0004U
#define ROM_CODE(a, b) ((uint32_t)(a) | (uint32_t)(b) << 8)

/* 5.4.8.9: addresses as the processor sees them, with the rights of secure code. */
#define FLASH_OP_ERASE 0x00000101U
#define FLASH_OP_PROGRAM 0x00010101U

/* 5.4.8.10: at the start of the boot RAM (4.3) lies the function that sets fast reads up again. */
#define XIP_SETUP ((const volatile uint32_t *)(uintptr_t)0x400E0000U)
#define XIP_SETUP_WORDS 64U

#define THUMB 1U
#define IN_RAM __attribute__((section(".ram_code"), noinline, used))

typedef void *(*lookup_t)(uint32_t code, uint32_t mask);
typedef void (*call_t)(void);
typedef int (*flash_op_t)(uint32_t flags, uint32_t address, uint32_t n, uint8_t *bytes);

/* The data sheet does not say what the ROM's functions take; these are generous.
 * stack bytes of rom_lookup: 128
 * stack bytes of rom_connect: 256
 * stack bytes of rom_exit_xip: 256
 * stack bytes of rom_flash_op: 512
 * stack bytes of rom_flush_cache: 128
 * stack bytes of xip_setup: 128 */
static call_t rom_connect, rom_exit_xip, rom_flush_cache;
static flash_op_t rom_flash_op;

static uint32_t setup_code[XIP_SETUP_WORDS]; /* the copy that runs; boot RAM is not for code */
static uint8_t page[PAGE_BYTES];

/* Finds the ROM's functions. Errors: MDY_FLASH. */
static mdy_status_t find_functions(void)
{
    uintptr_t at = ROM_LOOKUP;
    __asm__("" : "+r"(at)); /* gcc takes so low an address for a mistake */
    const lookup_t rom_lookup = (lookup_t)(uintptr_t)*(const volatile uint16_t *)at;
    rom_connect = (call_t)(uintptr_t)rom_lookup(ROM_CODE('I', 'F'), ROM_ARM_SECURE);
    rom_exit_xip = (call_t)(uintptr_t)rom_lookup(ROM_CODE('E', 'X'), ROM_ARM_SECURE);
    rom_flash_op = (flash_op_t)(uintptr_t)rom_lookup(ROM_CODE('F', 'O'), ROM_ARM_SECURE);
    rom_flush_cache = (call_t)(uintptr_t)rom_lookup(ROM_CODE('F', 'C'), ROM_ARM_SECURE);
    return rom_connect != NULL && rom_exit_xip != NULL && rom_flash_op != NULL && rom_flush_cache != NULL ? MDY_OK
                                                                                                          : MDY_FLASH;
}

/* 5.4.8.9, the sequence there; calls nothing that lies in flash. Returns what the ROM does. */
IN_RAM static int operate(uint32_t operation, uint32_t address, uint32_t n)
{
    volatile uint32_t *const copy = setup_code; /* else the loop may become a call to memcpy, in flash */
    for (uint32_t i = 0; i < XIP_SETUP_WORDS; i++) {
        copy[i] = XIP_SETUP[i];
    }
    const uint32_t was = mdy_mask();
    mdy_barrier();
    rom_connect();
    rom_exit_xip();
    const int status = rom_flash_op(operation, address, n, page);
    rom_flush_cache();
    const call_t xip_setup = (call_t)((uintptr_t)setup_code | THUMB);
    mdy_barrier();
    xip_setup();
    mdy_unmask(was);
    return status;
}

mdy_status_t mdy_part_read(uint32_t address, void *dst, uint32_t n)
{
    memcpy(dst, (const void *)(uintptr_t)address, n);
    return MDY_OK;
}

mdy_status_t mdy_part_erase(uint32_t address)
{
    return find_functions() == MDY_OK && operate(FLASH_OP_ERASE, address, SECTOR_BYTES) == 0 ? MDY_OK : MDY_FLASH;
}

mdy_status_t mdy_part_program(uint32_t address, const uint8_t *src, uint32_t n)
{
    mdy_status_t status = find_functions();
    while (n > 0U && status == MDY_OK) {
        const uint32_t before = address % PAGE_BYTES;
        const uint32_t part = n < PAGE_BYTES - before ? n : PAGE_BYTES - before;
        memset(page, 0xFF, sizeof page);
        memcpy(&page[before], src, part);
        status = operate(FLASH_OP_PROGRAM, address - before, PAGE_BYTES) == 0 ? MDY_OK : MDY_FLASH;
        address += part;
        src += part;
        n -= part;
    }
    return status;
}
