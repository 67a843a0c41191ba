/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STAND_IN_FLASH_MAP_H
#define STAND_IN_FLASH_MAP_H

#include <zephyr/device.h>

#include "machine.h"

struct flash_area {
    uint8_t fa_id;
    off_t fa_off;
    size_t fa_size;
};

/* One partition, storage_partition, the whole flash of the machine. */
#define FIXED_PARTITION_EXISTS(label) FIXED_PARTITION_EXISTS_##label
#define FIXED_PARTITION_EXISTS_medyate_partition 0
#define FIXED_PARTITION_NUMBER_storage_partition 1
#define FIXED_PARTITION_NUMBER(label) FIXED_PARTITION_NUMBER_##label
#define FIXED_PARTITION_ID(label) FIXED_PARTITION_NUMBER(label)
#define FIXED_PARTITION_SIZE(label) (FIXED_PARTITION_NUMBER(label) * MACHINE_BYTES)
#define FIXED_PARTITION_OFFSET(label) (FIXED_PARTITION_NUMBER(label) - 1)
#define CONFIG_FLASH_BASE_ADDRESS ((uintptr_t)machine_memory())

int flash_area_open(uint8_t id, const struct flash_area **fa);
void flash_area_close(const struct flash_area *fa);
int flash_area_read(const struct flash_area *fa, off_t off, void *dst, size_t len);
int flash_area_write(const struct flash_area *fa, off_t off, const void *src, size_t len);
int flash_area_erase(const struct flash_area *fa, off_t off, size_t len);
uint32_t flash_area_align(const struct flash_area *fa);

#endif
