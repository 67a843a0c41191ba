/* SPDX-License-Identifier: Apache-2.0 */
/* The clock of an emulated core: called by Unicorn before each block of code. A halfword of code is a cycle.

   Native, as a training step is some 100,000 blocks: a hook in Python would take longer than the code itself. */

#include <stdint.h>

enum { RUNS, DUE, SHUT };

struct clock {
    uint64_t now;       /* cycles since power came */
    uint64_t due;       /* stop at the first block that begins at or after this time */
    uint32_t shut_from; /* stop at a block from here ... */
    uint32_t shut_size; /* ... on, so many bytes; 0: nowhere */
    uint32_t why;       /* RUNS, DUE or SHUT */
    int (*stop)(void *engine);
};

void clock_block(void *engine, uint64_t address, uint32_t size, void *user);

void clock_block(void *engine, uint64_t address, uint32_t size, void *user)
{
    struct clock *clock = user;

    if ((uint32_t)address - clock->shut_from < clock->shut_size) {
        clock->why = SHUT;
    } else if (clock->now >= clock->due) {
        clock->why = DUE;
    } else {
        clock->now += size >> 1;
        return;
    }
    clock->stop(engine);
}
