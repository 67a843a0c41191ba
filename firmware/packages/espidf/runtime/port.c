/* SPDX-License-Identifier: Apache-2.0 */
/** mdy_port for ESP-IDF: banks in a partition, the link on a UART. Kconfig says which. */
#include "mdy/port.h"

#include "driver/uart.h"
#include "esp_partition.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "sdkconfig.h"

#define SECTOR_BYTES 4096U /* what the SPI flash erases at once */
#define UNIT_BYTES 16U
#define BYTES (CONFIG_MEDYATE_SECTORS * SECTOR_BYTES)
#define BUFFER_BYTES 1024

static const mdy_flash_run_t runs[] = {{CONFIG_MEDYATE_SECTORS, SECTOR_BYTES}};
static const mdy_flash_geometry_t geometry = {.runs = runs, .run_count = 1, .unit_bytes = UNIT_BYTES};

static const esp_partition_t *partition;
static const void *mapped; /* the whole of it, for good */
static bool is_installed;

/* Found and mapped at first use; an encrypted one is refused: erased flash does not read as ones there. */
static bool is_open(void)
{
    if (mapped == NULL) {
        esp_partition_mmap_handle_t handle;
        partition = esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY,
                                             CONFIG_MEDYATE_PARTITION);
        if (partition == NULL || partition->size < BYTES || partition->encrypted ||
            esp_partition_mmap(partition, 0, BYTES, ESP_PARTITION_MMAP_DATA, &mapped, &handle) != ESP_OK) {
            mapped = NULL;
        }
    }
    return mapped != NULL;
}

static mdy_status_t of(esp_err_t result)
{
    return result == ESP_OK ? MDY_OK : MDY_FLASH;
}

static mdy_status_t read_flash(void *context, uint32_t address, void *dst, uint32_t n)
{
    (void)context;
    return is_open() ? of(esp_partition_read(partition, address, dst, n)) : MDY_FLASH;
}

static mdy_status_t erase_sector(void *context, uint32_t address)
{
    (void)context;
    return is_open() ? of(esp_partition_erase_range(partition, address, SECTOR_BYTES)) : MDY_FLASH;
}

static mdy_status_t program_units(void *context, uint32_t address, const void *src, uint32_t n)
{
    (void)context;
    return is_open() ? of(esp_partition_write(partition, address, src, n)) : MDY_FLASH;
}

static const uint8_t *map_flash(void *context)
{
    (void)context;
    return is_open() ? mapped : NULL;
}

static bool uart_is_ready(void)
{
    const uart_config_t settings = {
        .baud_rate = CONFIG_MEDYATE_BAUD,
        .data_bits = UART_DATA_8_BITS,
        .parity = UART_PARITY_DISABLE,
        .stop_bits = UART_STOP_BITS_1,
        .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
        .source_clk = UART_SCLK_DEFAULT,
    };
    if (!is_installed) {
        is_installed = uart_driver_install(CONFIG_MEDYATE_UART, BUFFER_BYTES, 0, 0, NULL, 0) == ESP_OK &&
                       uart_param_config(CONFIG_MEDYATE_UART, &settings) == ESP_OK;
    }
    return is_installed;
}

/* Waits for the first byte, then takes what else is there. */
static int32_t receive(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    size_t more = 0;
    if (n == 0U || !uart_is_ready() || uart_read_bytes(CONFIG_MEDYATE_UART, dst, 1, portMAX_DELAY) != 1) {
        return MDY_LINK;
    }
    if (n == 1U || uart_get_buffered_data_len(CONFIG_MEDYATE_UART, &more) != ESP_OK || more == 0U) {
        return 1;
    }
    const int got = uart_read_bytes(CONFIG_MEDYATE_UART, &dst[1], more < n - 1U ? (uint32_t)more : n - 1U, 0);
    return got > 0 ? got + 1 : 1;
}

static mdy_status_t send(void *context, const uint8_t *src, uint32_t n)
{
    (void)context;
    return uart_is_ready() && uart_write_bytes(CONFIG_MEDYATE_UART, src, n) == (int)n ? MDY_OK : MDY_LINK;
}

static mdy_status_t draw_random(void *context, uint8_t *dst, uint32_t n)
{
    (void)context;
    esp_fill_random(dst, n); /* true random numbers while Wi-Fi, Bluetooth or the entropy source is on */
    return MDY_OK;
}

static uint32_t count_ticks(void *context)
{
    (void)context;
    return (uint32_t)esp_timer_get_time();
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
    .random = draw_random,
    .ticks = count_ticks,
    .ticks_per_second = 1000000,
};
