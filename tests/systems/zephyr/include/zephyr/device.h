/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures of docs.zephyrproject.org (4.x), as far as the port calls them. */
#ifndef STAND_IN_DEVICE_H
#define STAND_IN_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct device {
    const char *name;
};

extern const struct device console_uart;

#define DT_CHOSEN(node) node
#define DEVICE_OF(node) (&DEVICE_OF_##node)
#define DEVICE_DT_GET(node) DEVICE_OF(node)
#define DEVICE_OF_zephyr_console console_uart

bool device_is_ready(const struct device *dev);

#endif
