/* SPDX-License-Identifier: Apache-2.0 */
/** mdy_port for Zephyr: banks in a partition of the flash map, the link on the console's UART. Kconfig says which. */
#include "mdy/port.h"

#include <zephyr/device.h>
#include <zephyr/devicetree.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/sys/ring_buffer.h>

#if FIXED_PARTITION_EXISTS(medyate_partition)
#define PARTITION medyate_partition
#else
#define PARTITION storage_partition
#endif

#define SECTOR_BYTES ((uint32_t)CONFIG_MEDYATE_SECTOR_BYTES)
#define UNIT_BYTES ((uint32_t)CONFIG_MEDYATE_UNIT_BYTES)

static const mdy_flash_run_t runs[] = {{(uint32_t)FIXED_PARTITION_SIZE(PARTITION) / SECTOR_BYTES, SECTOR_BYTES}};
static const mdy_flash_geometry_t geometry = {.runs = runs, .run_count = 1, .unit_bytes = UNIT_BYTES};

static const struct flash_area *area;
static const struct device *const uart = DEVICE_DT_GET(DT_CHOSEN(zephyr_console));
static bool is_listening;

RING_BUF_DECLARE(received, CONFIG_MEDYATE_LINK_BUFFER_BYTES);
K_SEM_DEFINE(arrived, 0, 1);

/* Opened at first use; refused where the part writes larger units than the banks are laid out for. */
static bool is_open(void)
{
    if (area == NULL) {
        const struct flash_area *opened = NULL;
        if (flash_area_open(FIXED_PARTITION_ID(PARTITION), &opened) != 0) {
            return false;
        }
        if (UNIT_BYTES % flash_area_align(opened) != 0U) {
            flash_area_close(opened);
            return false;
        }
        area = opened;
    }
    return true;
}

static mdy_status_t of(int result)
{
    return result == 0 ? MDY_OK : MDY_FLASH;
}

static mdy_status_t read_flash(void *context, uint32_t address, void *dst, uint32_t n)
{
    ARG_UNUSED(context);
    return is_open() ? of(flash_area_read(area, (off_t)address, dst, n)) : MDY_FLASH;
}

static mdy_status_t erase_sector(void *context, uint32_t address)
{
    ARG_UNUSED(context);
    return is_open() ? of(flash_area_erase(area, (off_t)address, SECTOR_BYTES)) : MDY_FLASH;
}

static mdy_status_t program_units(void *context, uint32_t address, const void *src, uint32_t n)
{
    ARG_UNUSED(context);
    return is_open() ? of(flash_area_write(area, (off_t)address, src, n)) : MDY_FLASH;
}

static const uint8_t *map_flash(void *context)
{
    ARG_UNUSED(context);
    return (const uint8_t *)(CONFIG_FLASH_BASE_ADDRESS + FIXED_PARTITION_OFFSET(PARTITION));
}

/* What does not fit the buffer is lost; the link asks for it again. */
static void take(const struct device *device, void *context)
{
    uint8_t bytes[16];
    ARG_UNUSED(context);
    while (uart_irq_update(device) > 0 && uart_irq_rx_ready(device) > 0) {
        const int got = uart_fifo_read(device, bytes, sizeof bytes);
        if (got <= 0) {
            break;
        }
        (void)ring_buf_put(&received, bytes, (uint32_t)got);
    }
    k_sem_give(&arrived);
}

static int32_t receive(void *context, uint8_t *dst, uint32_t n)
{
    ARG_UNUSED(context);
    if (!is_listening) {
        if (!device_is_ready(uart) || uart_irq_callback_user_data_set(uart, take, NULL) != 0) {
            return MDY_LINK;
        }
        uart_irq_rx_enable(uart);
        is_listening = true;
    }
    for (;;) {
        const uint32_t got = ring_buf_get(&received, dst, n);
        if (got > 0U) {
            return (int32_t)got;
        }
        (void)k_sem_take(&arrived, K_FOREVER);
    }
}

static mdy_status_t send(void *context, const uint8_t *src, uint32_t n)
{
    ARG_UNUSED(context);
    for (uint32_t i = 0; i < n; i++) {
        uart_poll_out(uart, src[i]);
    }
    return MDY_OK;
}

static uint32_t count_ticks(void *context)
{
    ARG_UNUSED(context);
    return k_cycle_get_32();
}

static const mdy_flash_t flash = {
    .geometry = &geometry,
    .read = read_flash,
    .erase = erase_sector,
    .program = program_units,
    .map = map_flash,
};

const mdy_port_t mdy_port = {
    .flash = &flash,
    .receive = receive,
    .send = send,
    .ticks = count_ticks,
    .ticks_per_second = CONFIG_SYS_CLOCK_HW_CYCLES_PER_SEC,
};
