/* SPDX-License-Identifier: Apache-2.0 */
/* What the port calls of ESP-IDF, over the machine. */
#include <string.h>

#include "driver/uart.h"
#include "esp_random.h"
#include "esp_timer.h"
#include "machine.h"

static const esp_partition_t whole = {ESP_PARTITION_TYPE_DATA, 0,         MACHINE_BYTES,
                                      MACHINE_SECTOR_BYTES,    "medyate", false};
static uint8_t buffer[1024];
static size_t first, count;
static bool is_installed;

void app_main(void);

int main(void)
{
    app_main();
    return 0;
}

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label)
{
    (void)subtype;
    return type == whole.type && strcmp(label, whole.label) == 0 ? &whole : NULL;
}

esp_err_t esp_partition_read(const esp_partition_t *partition, size_t src_offset, void *dst, size_t size)
{
    return machine_read(partition->address + (uint32_t)src_offset, dst, size);
}

esp_err_t esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src, size_t size)
{
    return machine_write(partition->address + (uint32_t)dst_offset, src, size);
}

esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size)
{
    return machine_erase(partition->address + (uint32_t)offset, size);
}

esp_err_t esp_partition_mmap(const esp_partition_t *partition, size_t offset, size_t size,
                             esp_partition_mmap_memory_t memory, const void **out_ptr,
                             esp_partition_mmap_handle_t *out_handle)
{
    if (memory != ESP_PARTITION_MMAP_DATA || offset + size > partition->size) {
        return ESP_FAIL;
    }
    *out_ptr = &machine_memory()[partition->address + offset];
    *out_handle = 1;
    return ESP_OK;
}

esp_err_t uart_driver_install(uart_port_t uart_num, int rx_buffer_size, int tx_buffer_size, int queue_size,
                              QueueHandle_t *uart_queue, int intr_alloc_flags)
{
    (void)queue_size;
    (void)uart_queue;
    (void)intr_alloc_flags;
    is_installed = uart_num == 0 && rx_buffer_size > 128 && tx_buffer_size >= 0;
    return is_installed ? ESP_OK : ESP_FAIL;
}

esp_err_t uart_param_config(uart_port_t uart_num, const uart_config_t *uart_config)
{
    return uart_num == 0 && uart_config->baud_rate > 0 && uart_config->source_clk != 0 ? ESP_OK : ESP_FAIL;
}

int uart_read_bytes(uart_port_t uart_num, void *buf, uint32_t length, TickType_t ticks_to_wait)
{
    (void)uart_num;
    uint8_t *const to = buf;
    uint32_t n = 0;
    while (is_installed && n < length && (count > 0 || ticks_to_wait > 0)) {
        if (count == 0) {
            count = machine_take(buffer, sizeof buffer);
            first = 0;
        }
        to[n++] = buffer[first++];
        count--;
    }
    return is_installed ? (int)n : -1;
}

int uart_write_bytes(uart_port_t uart_num, const void *src, size_t size)
{
    (void)uart_num;
    if (!is_installed) {
        return -1;
    }
    machine_give(src, size);
    return (int)size;
}

esp_err_t uart_get_buffered_data_len(uart_port_t uart_num, size_t *size)
{
    (void)uart_num;
    *size = count;
    return is_installed ? ESP_OK : ESP_FAIL;
}

void esp_fill_random(void *buf, size_t len)
{
    memset(buf, 0, len);
}

int64_t esp_timer_get_time(void)
{
    static int64_t now;
    return now++;
}
