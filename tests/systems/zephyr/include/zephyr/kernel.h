/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STAND_IN_KERNEL_H
#define STAND_IN_KERNEL_H

#include <zephyr/device.h>

#define ARG_UNUSED(x) (void)(x)

typedef struct {
    int64_t ticks;
} k_timeout_t;

#define K_FOREVER ((k_timeout_t){-1})

struct k_sem {
    unsigned int count, limit;
};

#define K_SEM_DEFINE(name, initial_count, count_limit) static struct k_sem name = {initial_count, count_limit}

int k_sem_take(struct k_sem *sem, k_timeout_t timeout);
void k_sem_give(struct k_sem *sem);
uint32_t k_cycle_get_32(void);

#endif
