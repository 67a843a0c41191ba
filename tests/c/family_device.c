/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of tests/ops/test_families.py on an emulated core: read from cases.bin, what comes of them goes to
 * outputs.bin, by semihosting. A case is a row of parts, each its number of bytes, then those, padded to words. Part 0
 * is whether it is depthwise, the room, the bytes of the output and whether it goes back; the others are what
 * family_forward or family_backward takes in that order. A part without bytes is NULL.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void family_forward(int depthwise, const int32_t g[24], const int32_t tile[4], const int32_t *bias, const int32_t *mult,
                    const int8_t *shift, const int8_t *w, int8_t *x, int8_t *y, const int32_t *acc_init, uint8_t *work,
                    uint32_t room);

void family_backward(int depthwise, const int32_t g[24], const int16_t *grad_mult, const int8_t *w,
                     const int32_t selected[3], uint8_t *records, int8_t *dy, int32_t *sums, uint8_t *work,
                     uint32_t room);

extern uint32_t stack_top;
void _start(void);
static void failed(void)
{
    exit(3);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top,           (const void *)_start, (const void *)failed, (const void *)failed,
    (const void *)failed, (const void *)failed, (const void *)failed,
};

#define GUARD 64u
#define ROOM 40000u
#define PARTS 9

static uint8_t cases[1 << 21] __attribute__((aligned(8)));
static int8_t y[1 << 16] __attribute__((aligned(8)));
static uint8_t work[ROOM + GUARD] __attribute__((aligned(8)));

int main(void)
{
    FILE *in = fopen("cases.bin", "rb");
    FILE *out = fopen("outputs.bin", "wb");
    const size_t size = fread(cases, 1, sizeof cases, in);
    for (size_t at = 0; at < size;) {
        uint8_t *parts[PARTS];
        for (int part = 0; part < PARTS; part++) {
            uint32_t bytes;
            memcpy(&bytes, cases + at, sizeof bytes);
            parts[part] = bytes == 0 ? NULL : cases + at + 4;
            at += 4 + ((bytes + 3u) & ~3u);
        }
        const int32_t *how = (const int32_t *)parts[0];
        memset(y, 99, sizeof y);
        memset(work, 77, sizeof work);
        if (how[3]) {
            family_backward((int)how[0], (const int32_t *)parts[1], (const int16_t *)parts[2], (const int8_t *)parts[3],
                            (const int32_t *)parts[4], parts[5], (int8_t *)parts[6], (int32_t *)(void *)(y + GUARD),
                            work, (uint32_t)how[1]);
        } else {
            family_forward((int)how[0], (const int32_t *)parts[1], (const int32_t *)parts[2], (const int32_t *)parts[3],
                           (const int32_t *)parts[4], (const int8_t *)parts[5], (const int8_t *)parts[6],
                           (int8_t *)parts[7], y + GUARD, (const int32_t *)parts[8], work, (uint32_t)how[1]);
        }
        for (uint32_t i = (uint32_t)how[1]; i < sizeof work; i++) {
            if (work[i] != 77) {
                exit(4);
            }
        }
        fwrite(y, 1, (uint32_t)how[2], out);
    }
    fclose(out);
    exit(0);
}
