/* SPDX-License-Identifier: Apache-2.0 */
/** The tables that the compiler emits for one network, and the running state that they describe. */
#ifndef MDY_MODEL_H
#define MDY_MODEL_H

#include "mdy/banks.h"
#include "mdy/layer.h"
#include "mdy/status.h"
#include "mdy/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Version of these tables; generated code refuses to compile against another one. */
#define MDY_ABI 9

#define MDY_BATCH_LOG2_MAX 6
#define MDY_SHIFT_MAX 31      /* pixels */
#define MDY_SMOOTHING_MAX 128 /* half of a label */
#define MDY_ALIGN4(n) (((n) + 3u) & ~(uint32_t)3u)

/** Puts a variable into a section that a linker script can place; elsewhere it lies where the compiler likes. */
#ifdef __ELF__
#define MDY_SECTION(name) __attribute__((section(name)))
#else
#define MDY_SECTION(name)
#endif

/** Memory of one region, aligned to 8; never NULL, not even where it has 0 bytes. */
typedef struct {
    uint8_t *at;
    uint32_t bytes;
} mdy_region_t;

/** The caller's memory: each region may lie in another RAM area of the board. */
typedef struct {
    mdy_region_t planned, epoch, state;
} mdy_memory_t;

/** What a head's outputs are trained for. */
enum {
    MDY_CROSS_ENTROPY = 0, /* softmax over the logits against a label */
    MDY_SQUARED_ERROR = 1  /* half the mean squared difference from a vector of targets */
};

/**
 * The last layer of the new task: int16 weights and int32 biases. All of them lie in the state region; or, where
 * `columns` input channels are trained at a time, the weights are the first part of a bank's, and the state region
 * holds those of this epoch's channels.
 */
typedef struct {
    mdy_tensor_t x;      /* features; all H * W * C elements count */
    mdy_gradient_t dx;   /* their gradient */
    uint32_t logits;     /* int32 in Q16, offset in the planned region */
    uint32_t dlogits;    /* int16 in Q15; of a squared error, in Q16 shifted right by error_shift */
    uint32_t target;     /* int32 in Q16, offset in the planned region; MDY_NONE: labels are classes */
    uint32_t scratch;    /* x.shape.c int32 */
    uint32_t features;   /* H * W * C */
    uint16_t classes;    /* outputs; 2 or more, 1 or more of a squared error */
    uint16_t columns;    /* features that an epoch trains, drawn uniformly; 0: all */
    uint32_t bank_bytes; /* of the weights of a sampled head, the first part of a bank's weights; else 0 */
    uint8_t loss;        /* MDY_CROSS_ENTROPY or MDY_SQUARED_ERROR */
    uint8_t error_shift;
    uint8_t sum_shift; /* bits that sums of weight * dlogit over the outputs give up to fit int32 */
    int16_t x_zero;
    uint16_t mult; /* logit in Q16 = sum * mult * 2^exponent */
    int16_t exponent;
    int16_t grad_exponent; /* 2-exponent of the shifted sums of weight * dlogit */
    uint16_t rate_mult;    /* weight step = lr * dlogit * (x - x_zero) * rate_mult * 2^rate_exponent */
    int16_t rate_exponent;
    uint16_t bias_mult; /* bias step = lr * dlogit * bias_mult * 2^bias_exponent */
    int16_t bias_exponent;
    const int16_t *weight; /* (classes, features) at the start, or NULL: zeros */
    const int32_t *bias;   /* Q16, or NULL: zeros */
} mdy_head_t;

/**
 * Offsets of the arrays in the state region, multiples of 4; MDY_NONE: the model has no such array. Those up to and
 * including `biases` are part of a generation. The compiler's ledger.py makes this table, and nobody else counts.
 */
typedef struct {
    uint32_t head_bias, norms, slot_r, selection, biases;
    uint32_t slot_e, first, count;
    uint32_t head_index;  /* of a sampled head */
    uint32_t head_weight; /* saved, unless the head is sampled */
    uint32_t held_dlogits, held_features;
    uint32_t weights;     /* of the candidates, where they are in RAM */
    uint32_t saved_bytes; /* that a generation holds: the first ones of the region */
    uint32_t bytes;       /* of the whole region */
} mdy_state_t;

/** How the selection of the next epoch comes about. */
enum {
    MDY_PROPORTIONAL = 0, /* drawn by norms, which every epoch observes anew for the channels that it trains */
    MDY_UNIFORM = 1,      /* drawn by the norms of the start, which stay */
    MDY_FIXED = 2         /* all eligible channels, always the same */
};

/** How gradients become updates; see update.h. */
typedef struct mdy_optimizer mdy_optimizer_t;

/** One compiled network. */
typedef struct {
    const char *name;
    uint32_t digest; /* identifies network, plan and state layout; a bank of another digest is refused */
    mdy_tensor_t input;
    mdy_tensor_t output;    /* of the last operation: the head's features, or what inference gives */
    const mdy_head_t *head; /* NULL: inference only */
    const mdy_candidate_t *candidates;
    const mdy_biases_t *biases;
    const uint8_t *eligible;       /* bitmap: candidate channels that may be selected at all */
    const uint16_t *norm_start;    /* packed as in fixed.h, 0: never drawn; NULL: 1 for every eligible channel */
    const int16_t *exponent_start; /* per slot, log2 relative to the loss gradient, in 1/16 */
    uint16_t candidate_count;
    uint16_t channel_count; /* candidate channels in all */
    uint16_t slot_count;
    uint16_t bias_layer_count;
    uint32_t bias_count; /* trained biases in all */
    const mdy_optimizer_t *optimizer;
    uint8_t policy;     /* MDY_PROPORTIONAL, MDY_UNIFORM or MDY_FIXED */
    uint8_t batch_log2; /* log2 of the samples whose mean gradient makes one update; at most MDY_BATCH_LOG2_MAX */
    uint32_t planned_bytes, epoch_bytes;
    mdy_state_t state;
    uint32_t bank_weight_bytes;
    int16_t input_zero;     /* zero point of the input: what a moved sample leaves behind */
    uint8_t weights_in_ram; /* 1: candidate weights are part of the state region, nothing is written to flash */
    void (*forward)(mdy_t *m);
    void (*backward)(mdy_t *m);
} mdy_model_t;

/** Classes of the head; 0: there is none. */
static inline uint32_t mdy_classes(const mdy_model_t *model)
{
    return model->head == NULL ? 0 : model->head->classes;
}

/** The bits of a sample's number that say which of its batch it is. */
static inline uint32_t mdy_batch_rest(const mdy_model_t *model)
{
    return (1u << model->batch_log2) - 1u;
}

/** Whether the sample comes row by row: there is no place for the whole of it. */
static inline int mdy_by_rows(const mdy_model_t *model)
{
    return model->input.rows < model->input.shape.h;
}

/** The learning rate over the steps of a whole training. */
typedef struct {
    uint32_t rate_mult; /* peak rate = rate_mult * 2^rate_exponent, rate_mult <= 65535 */
    int32_t rate_exponent;
    uint32_t cosine;       /* 0: constant; 1: cosine decay to zero */
    uint32_t warmup_steps; /* linear rise from zero */
    uint32_t total_steps;  /* length of the training; a constant rate needs none */
    uint16_t clip;         /* largest norm of a layer's gradient in a step, packed as in fixed.h; 0: any */
} mdy_schedule_t;

/** What a bank holds. */
enum {
    MDY_BANK_EMPTY = 0,      /* erased */
    MDY_BANK_USABLE = 1,     /* a whole generation of this model */
    MDY_BANK_UNFINISHED = 2, /* no header: its commit was interrupted, or its generation was forgotten */
    MDY_BANK_DAMAGED = 3,    /* it cannot be read, does not fit its checksums, or holds impossible values */
    MDY_BANK_MODEL = 4,      /* a generation of another model or plan */
    MDY_BANK_FORMAT = 5      /* a generation in another MDY_STORE_FORMAT */
};

/** A bank as mdy_init found it. */
typedef struct {
    uint32_t generation; /* its number; 0 without a whole header */
    uint32_t origin;     /* digest of its model or, of another format, the number of that */
    uint8_t state;       /* MDY_BANK_EMPTY to MDY_BANK_FORMAT */
} mdy_found_t;

/** Where a training step is. */
enum { MDY_FORWARD = 1, MDY_BACKWARD = 2 };

/** Everything that runs; the application owns one, the runtime fills it. */
struct mdy {
    const mdy_model_t *model;
    const mdy_flash_t *flash;         /* of the banks */
    uint8_t *planned, *epoch, *state; /* the three regions */
    /* Views into the state region (mdy_state_t); NULL: the model has no such array. */
    int16_t *head_weight; /* (classes, features), or where the head is sampled (columns, classes) */
    uint16_t *head_index; /* the features of those columns, ascending */
    int32_t *head_bias;
    uint16_t *norms;        /* one per candidate channel, packed; only where they change: MDY_PROPORTIONAL */
    int16_t *slot_r;        /* predicted log2 of each gradient's maximum, in 1/16 */
    uint8_t *selection;     /* bitmap of candidate channels */
    int32_t *biases;        /* trained ones, layer by layer */
    uint32_t saved_bytes;   /* bytes of the state region that a generation holds */
    int16_t *slot_e;        /* this step's exponents */
    uint32_t *first;        /* per candidate: offset of its records in the epoch region */
    uint16_t *count;        /* per candidate: how many records */
    const uint8_t *weights; /* in force, of a sampled head and the candidates, in a bank or in RAM; NULL: factory */
    int16_t *held_dlogits;  /* of the samples that wait for their update, (batch, classes); only where batch_log2 > 0 */
    int8_t *held_features;  /* the head's inputs of those samples, (batch, features) */
    uint8_t *ram_weights;   /* their place in the state region; NULL: they are in flash */
    mdy_bank_t banks[2];
    mdy_found_t found[2]; /* what the banks held at the start */
    uint32_t erases[2];   /* how often each bank has been erased, as far as headers tell; stays at its largest */
    uint32_t payload_crc; /* of the generation in use, as it was loaded or written */
    uint32_t body_bytes;  /* of its settings, in front of its state */
    uint32_t fault;       /* number of the reserved sector that refused for good in the last commit, roll-back or
                               reset, from 0; MDY_NONE: none */
    mdy_schedule_t schedule;
    uint32_t seed;
    uint32_t generation; /* newest number in the banks, usable or not; 0: none */
    uint32_t epochs;     /* epochs committed; this and steps stay at their largest */
    uint32_t steps;      /* training steps since the start of the training */
    uint32_t epoch_step; /* training steps since the last commit */
    uint32_t rate_mult;  /* this step's learning rate */
    int32_t rate_exponent;
    int32_t reference;    /* log2 of this step's largest loss gradient, in 1/16 */
    uint32_t saturations; /* gradient values clipped since init */
    uint16_t deepest;     /* order of the deepest layer with a selected channel or biases; MDY_FROZEN: none */
    uint8_t training;     /* MDY_FORWARD or MDY_BACKWARD inside a training step, else 0 */
    uint8_t flipped;      /* this step's sample is mirrored, and then */
    int8_t down, right;   /* moved by so many pixels */
    uint8_t head_only;    /* no channel is selected, whatever the bitmap says */
    uint8_t flip;         /* random horizontal flips of training samples */
    uint8_t shift;        /* and moves, by up to so many pixels */
    uint8_t smoothing;    /* of labels, in 1/256 */
    uint8_t bank;         /* the bank that the next commit leaves alone */
    uint8_t aborted;      /* the yield hook stopped this step */
    uint32_t loss_crc, selection_crc; /* running digests of what the training did */
    int (*yield)(void *context);      /* called between bands of rows; nonzero aborts the step */
    void *yield_context;
    int (*load)(void *context, uint16_t row, int8_t *values); /* see mdy_config_t */
    void *load_context;
};

#ifdef __cplusplus
}
#endif

#endif
