/* SPDX-License-Identifier: Apache-2.0 */
/* What the port calls of Zephyr, over the machine; the UART interrupts while the program waits. */
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/sys/ring_buffer.h>

#define FIFO_BYTES 64

const struct device console_uart = {"uart"};
static const struct flash_area whole = {1, 0, MACHINE_BYTES};
static uart_irq_callback_user_data_t handler;
static void *handler_context;
static bool is_enabled;
static uint8_t fifo[FIFO_BYTES];
static size_t fifo_first, fifo_count;

bool device_is_ready(const struct device *dev)
{
    return dev == &console_uart;
}

int uart_irq_callback_user_data_set(const struct device *dev, uart_irq_callback_user_data_t cb, void *user_data)
{
    (void)dev;
    handler = cb;
    handler_context = user_data;
    return 0;
}

void uart_irq_rx_enable(const struct device *dev)
{
    (void)dev;
    is_enabled = true;
}

int uart_irq_update(const struct device *dev)
{
    (void)dev;
    return 1;
}

int uart_irq_rx_ready(const struct device *dev)
{
    (void)dev;
    return fifo_count > 0;
}

int uart_fifo_read(const struct device *dev, uint8_t *rx_data, const int size)
{
    (void)dev;
    int n = 0;
    while (n < size && fifo_count > 0) {
        rx_data[n++] = fifo[fifo_first++];
        fifo_count--;
    }
    return n;
}

void uart_poll_out(const struct device *dev, unsigned char out_char)
{
    (void)dev;
    machine_give(&out_char, 1);
}

int k_sem_take(struct k_sem *sem, k_timeout_t timeout)
{
    (void)timeout;
    while (sem->count == 0) {
        fifo_count = machine_take(fifo, sizeof fifo);
        fifo_first = 0;
        if (is_enabled) {
            handler(&console_uart, handler_context);
        }
    }
    sem->count--;
    return 0;
}

void k_sem_give(struct k_sem *sem)
{
    sem->count += sem->count < sem->limit;
}

uint32_t k_cycle_get_32(void)
{
    static uint32_t cycles;
    return cycles++;
}

uint32_t ring_buf_put(struct ring_buf *buf, const uint8_t *data, uint32_t size)
{
    uint32_t n = 0;
    for (; n < size && buf->count < buf->size; n++, buf->count++) {
        buf->buffer[(buf->first + buf->count) % buf->size] = data[n];
    }
    return n;
}

uint32_t ring_buf_get(struct ring_buf *buf, uint8_t *data, uint32_t size)
{
    uint32_t n = 0;
    for (; n < size && buf->count > 0; n++, buf->count--) {
        data[n] = buf->buffer[buf->first];
        buf->first = (buf->first + 1) % buf->size;
    }
    return n;
}

int flash_area_open(uint8_t id, const struct flash_area **fa)
{
    *fa = &whole;
    return id == whole.fa_id ? 0 : -2;
}

void flash_area_close(const struct flash_area *fa)
{
    (void)fa;
}

int flash_area_read(const struct flash_area *fa, off_t off, void *dst, size_t len)
{
    return machine_read((uint32_t)(fa->fa_off + off), dst, len);
}

int flash_area_write(const struct flash_area *fa, off_t off, const void *src, size_t len)
{
    return machine_write((uint32_t)(fa->fa_off + off), src, len);
}

int flash_area_erase(const struct flash_area *fa, off_t off, size_t len)
{
    return machine_erase((uint32_t)(fa->fa_off + off), len);
}

uint32_t flash_area_align(const struct flash_area *fa)
{
    (void)fa;
    return 4;
}
