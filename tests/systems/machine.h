/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A machine for the stand-ins of other systems' headers: NOR flash with the rules of ports/emu, kept in the file
 * MDY_FLASH_FILE, and a line that is stdin and stdout.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stddef.h>
#include <stdint.h>

#define MACHINE_SECTORS 64u
#define MACHINE_SECTOR_BYTES 4096u
#define MACHINE_BYTES (MACHINE_SECTORS * MACHINE_SECTOR_BYTES)

/* 0, or -1 where the flash refuses. */
int machine_read(uint32_t address, void *dst, size_t n);
int machine_write(uint32_t address, const void *src, size_t n);
int machine_erase(uint32_t address, size_t n);
const uint8_t *machine_memory(void);

/* Waits for at least one byte; ends the process where the line does. */
size_t machine_take(uint8_t *dst, size_t n);
void machine_give(const uint8_t *src, size_t n);

#endif
