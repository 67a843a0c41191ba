/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU plugin that counts the instructions of a Thumb program, told apart by where they were called from.
 *
 *     -plugin counter.so,out=FILE,span=ADDRESS,...,watch=BEGIN-END,...
 *
 * A span is one call of a function at a `span` address, up to its return; its counts are appended to FILE when it ends:
 *
 *     span ADDRESS
 *     SITE INSTRUCTIONS
 *     ...
 *     block BEGIN END RUNS
 *     ...
 *
 * The blocks, instructions that run one after the other, and how often they did, are written with `blocks=on`.
 * The site of an instruction is where the last of the functions in the `watch` ranges that led to it is left: the address
 * of its call, which stands for everything that is called there; or 0, without such a function. All numbers but counts
 * are hexadecimal. With `probe=on` QEMU ends with status 0 as soon as it has loaded the plugin.
 *
 * The interface is version 1 of QEMU's (include/qemu/qemu-plugin.h), declared here because Debian ships no header.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_CB_NO_REGS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*executed)(unsigned, void *), int flags,
                                          void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t number);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);

EXPORT int qemu_plugin_version = 1;

enum { FRAMES = 256, SITES = 4096, SPANS = 16, RANGES = 1024 };

/* Instructions that run one after the other: what QEMU translates at once. */
typedef struct block {
    uint32_t start, last, end; /* addresses: of the first and last instruction, and behind that */
    uint32_t count;
    bool is_call, is_watched, is_span;
    uint64_t runs; /* in this span */
    struct block *next;
} block_t;

/* A call that has not returned. */
typedef struct {
    uint32_t returns_to;
    uint32_t site; /* of the caller */
} frame_t;

static struct {
    uint32_t address;
    uint64_t count;
} sites[SITES] = {{0, 0}}; /* the first is that of nothing */
static uint32_t site_count = 1;

static struct {
    uint32_t begin, end;
} ranges[RANGES];
static uint32_t range_count;

static uint32_t spans[SPANS];
static uint32_t span_count;

static frame_t frames[FRAMES];
static uint32_t depth;
static uint32_t site;       /* of what runs now: an index */
static uint32_t span_depth; /* of the call that is a span; 0: none */
static uint32_t span_address;
static FILE *out;
static bool with_blocks;
static block_t *blocks; /* all of them, the last one first */

static void fail(const char *what)
{
    fprintf(stderr, "counter: %s\n", what);
    exit(1);
}

static uint32_t index_of(uint32_t address)
{
    for (uint32_t i = 1; i < site_count; i++) {
        if (sites[i].address == address) {
            return i;
        }
    }
    if (site_count == SITES) {
        fail("too many places that call");
    }
    sites[site_count].address = address;
    return site_count++;
}

static void end_span(void)
{
    fprintf(out, "span %x\n", span_address);
    for (uint32_t i = 0; i < site_count; i++) {
        if (sites[i].count > 0) {
            fprintf(out, "%x %llu\n", sites[i].address, (unsigned long long)sites[i].count);
            sites[i].count = 0;
        }
    }
    for (block_t *block = blocks; block != NULL; block = block->next) {
        if (with_blocks && block->runs > 0) {
            fprintf(out, "block %x %x %llu\n", block->start, block->end, (unsigned long long)block->runs);
        }
        block->runs = 0;
    }
    fflush(out);
    span_depth = 0;
}

/* Every call pushes a frame and every return takes one: nothing here is recursive, or jumps out of a function. */
static void executed(unsigned cpu, void *data)
{
    block_t *block = data;
    (void)cpu;
    if (depth > 0 && frames[depth - 1].returns_to == block->start) {
        if (depth == span_depth) {
            end_span();
        }
        site = frames[--depth].site;
    }
    if (block->is_span && span_depth == 0 && depth > 0) {
        span_depth = depth;
        span_address = block->start;
    }
    if (block->is_watched) {
        site = index_of(block->last);
    }
    if (span_depth > 0) {
        sites[site].count += block->count;
        block->runs++;
    }
    if (block->is_call) {
        if (depth == FRAMES) {
            fail("calls are nested too deep");
        }
        frames[depth++] = (frame_t){block->end, site};
    }
}

/* BL, BLX and BLXNS of a register. A call that leaves by a plain branch returns to the caller of its function. */
static bool is_call(const uint8_t *code, size_t bytes)
{
    const uint32_t first = code[0] | (uint32_t)code[1] << 8;
    if (bytes == 2) {
        return (first & 0xff83U) == 0x4780U;
    }
    const uint32_t second = code[2] | (uint32_t)code[3] << 8;
    return (first & 0xf800U) == 0xf000U && (second & 0xd000U) == 0xd000U;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    const size_t n = qemu_plugin_tb_n_insns(tb);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    const size_t bytes = qemu_plugin_insn_size(last);
    block_t *block = calloc(1, sizeof *block); /* QEMU may run it until the end */
    (void)id;
    if (block == NULL) {
        fail("no memory");
    }
    block->start = (uint32_t)qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    block->last = (uint32_t)qemu_plugin_insn_vaddr(last);
    block->end = block->last + (uint32_t)bytes;
    block->count = (uint32_t)n;
    block->is_call = is_call(qemu_plugin_insn_data(last), bytes);
    for (uint32_t i = 0; i < range_count; i++) {
        block->is_watched |= ranges[i].begin <= block->start && block->start < ranges[i].end;
    }
    for (uint32_t i = 0; i < span_count; i++) {
        block->is_span |= spans[i] == block->start;
    }
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void take(const char *argument)
{
    char *rest;
    if (strncmp(argument, "out=", 4) == 0) {
        out = fopen(argument + 4, "w");
    } else if (strncmp(argument, "span=", 5) == 0 && span_count < SPANS) {
        spans[span_count++] = (uint32_t)strtoul(argument + 5, NULL, 16);
    } else if (strncmp(argument, "watch=", 6) == 0 && range_count < RANGES) {
        ranges[range_count].begin = (uint32_t)strtoul(argument + 6, &rest, 16);
        ranges[range_count++].end = (uint32_t)strtoul(rest + 1, NULL, 16);
    } else if (strncmp(argument, "blocks=", 7) == 0) {
        with_blocks = strcmp(argument + 7, "on") == 0;
    } else if (strcmp(argument, "probe=on") == 0) {
        exit(0);
    } else {
        fail("an argument is unknown, or one too many");
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int count, char **arguments)
{
    (void)info;
    for (int i = 0; i < count; i++) {
        take(arguments[i]);
    }
    if (out == NULL) {
        fail("the file for the counts cannot be written");
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
