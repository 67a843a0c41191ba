/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of tests/ops/test_families.py on an emulated core: read from cases.bin, what comes of them goes to
 * outputs.bin, by semihosting. A case is a row of parts, each its number of bytes, then those, padded to words; a part
 * without bytes is NULL. The first part is its direction, whether it is depthwise, and the room; the second the output
 * before the call, with guard bands; the others are what family_call takes.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 12

void family_call(int direction, int depthwise, void *const parts[PARTS], void *out, uint8_t *work, uint32_t room);

extern uint32_t stack_top;
void _start(void);
static void failed(void)
{
    exit(3);
}

/* The C library's heap: where QEMU says that there is memory for one is not always so. */
void *_sbrk(ptrdiff_t bytes);
void *_sbrk(ptrdiff_t bytes)
{
    static char heap[1 << 15] __attribute__((aligned(8)));
    static char *end = heap;
    char *begin = end;
    if (bytes > heap + sizeof heap - end) {
        exit(7);
    }
    end += bytes;
    return begin;
}

/* Vectors are coprocessors 10 and 11, which are off after a reset (CPACR). */
__attribute__((naked)) static void reset(void)
{
    __asm__ volatile(
#ifdef __ARM_FEATURE_MVE
        "ldr r0, =0xE000ED88\n"
        "ldr r1, [r0]\n"
        "orr r1, r1, #0xF00000\n"
        "str r1, [r0]\n"
        "dsb\n"
        "isb\n"
#endif
        "b _start\n");
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top,           (const void *)reset,  (const void *)failed, (const void *)failed,
    (const void *)failed, (const void *)failed, (const void *)failed,
};

#define GUARD 64u
#define ROOM 40000u

static uint8_t memory[1 << 18] __attribute__((aligned(8))); /* of one case */
static uint8_t output[1 << 16] __attribute__((aligned(8)));
static uint8_t work[ROOM + GUARD] __attribute__((aligned(8)));

int main(void)
{
    FILE *in = fopen("cases.bin", "rb");
    FILE *out = fopen("outputs.bin", "wb");
    for (uint32_t first; fread(&first, sizeof first, 1, in) == 1;) {
        void *parts[2 + PARTS];
        uint32_t bytes[2 + PARTS];
        uint32_t at = 0;
        for (int part = 0; part < 2 + PARTS; part++) {
            bytes[part] = first;
            if (part > 0 && fread(&bytes[part], sizeof bytes[part], 1, in) != 1) {
                exit(5);
            }
            const uint32_t padded = (bytes[part] + 3u) & ~3u;
            if (at + padded > sizeof memory || fread(memory + at, 1, padded, in) != padded) {
                exit(6);
            }
            parts[part] = bytes[part] == 0 ? NULL : memory + at;
            at += padded;
        }
        const int32_t *how = (const int32_t *)parts[0];
        memcpy(output, parts[1], bytes[1]);
        memset(work, 77, sizeof work);
        family_call((int)how[0], (int)how[1], parts + 2, output + GUARD, work, (uint32_t)how[2]);
        for (uint32_t i = (uint32_t)how[2]; i < sizeof work; i++) {
            if (work[i] != 77) {
                exit(4);
            }
        }
        fwrite(output, 1, bytes[1], out);
    }
    fclose(out);
    exit(0);
}
