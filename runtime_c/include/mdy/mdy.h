/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The one header an application reads: fine-tune the compiled network, use it, keep what it learned.
 *
 * NAME is that of `medyate compile --name`, mdy without it; NAME_model.h is generated and has the sizes, the class names
 * and the start values. A whole application, as the project's tests compile and run it:
 *
 *   #include "mdy/mdy.h"
 *   #include "mdy/port.h"
 *   #include "mdy_model.h"
 *
 *   int camera(uint8_t *pixels, int *label); // the application's own: 0 ends it; a label below 0: nobody has told one
 *   void show(const char *text);
 *
 *   static mdy_t net;
 *
 *   int main(void)
 *   {
 *       // The banks are those of the board's port; the other fields are what `medyate run` uses.
 *       mdy_config_t config = MDY_DEFAULT_CONFIG(mdy_port.flash);
 *       config.flip = 1;
 *       mdy_status_t status = mdy_init(&net, &mdy_model, &mdy_memory, &config);
 *       if (status == MDY_MODEL) { // the banks are an older image's: nothing of them can be used
 *           config.fresh = 1;
 *           status = mdy_init(&net, &mdy_model, &mdy_memory, &config);
 *       }
 *       uint8_t pixels[MDY_MODEL_INPUT_BYTES];
 *       int label;
 *       while (status == MDY_OK && camera(pixels, &label)) {
 *           mdy_result_t result;
 *           int8_t *const input = mdy_input(&net);
 *           for (uint32_t i = 0; i < MDY_MODEL_INPUT_BYTES; i++) {
 *               input[i] = mdy_from_pixel[pixels[i]];
 *           }
 *           if (label < 0) {
 *               status = mdy_infer(&net, MDY_MODEL_CLASSES, &result);
 *               show(mdy_class_names[result.prediction]);
 *               continue;
 *           }
 *           status = mdy_train_step(&net, (uint16_t)label, &result);
 *           if (status == MDY_OK && net.epoch_step == 32) {
 *               status = mdy_end_epoch(&net); // other channels from now on; what was learned is in flash
 *           }
 *       }
 *       return status == MDY_OK ? 0 : 1;
 *   }
 *
 * CONTEXT. A call runs to its end in the context of its caller: the main loop, or one task of an RTOS with a stack as deep as
 * `medyate compile` prints. Calls for one mdy_t must not overlap; different ones may, as nothing is shared. From an interrupt
 * nothing here may be called: it sets a flag, or fills a buffer of its own, and the loop does the rest. The one exception is
 * reading fields of mdy_result_t that the loop has copied out.
 *
 * HOW LONG. A training step and an inference take what `medyate bench` counts, a step at most
 * NAME_MODEL_STEP_INSTRUCTIONS. They read flash, they never write it. mdy_accept, mdy_end_epoch, mdy_roll_back and
 * mdy_factory_reset erase sectors: the milliseconds that `medyate plan --board` prints, seconds on some parts, during which
 * the core may not even be able to fetch code. mdy_init reads both banks once. Nothing else blocks, nothing waits.
 *
 * WHAT YIELDS. mdy_train_step and mdy_infer call `yield` between bands of rows, at least once for each layer: feed the
 * watchdog there, or let other tasks run. Commits call nothing but the flash's own hooks; those feed the watchdog themselves.
 *
 * MEMORY. All of it is the caller's: a mdy_t (some hundred bytes) and three regions of NAME_MODEL_PLANNED_BYTES,
 * _EPOCH_BYTES and _STATE_BYTES, aligned to 8. NAME_memory.c has them as arrays in sections .bss.mdy_planned, .bss.mdy_epoch
 * and .bss.mdy_state, so that a linker script can place each in another RAM. An application with memory of its own leaves
 * that file out. What the regions hold between calls is the runtime's, the input and the output apart.
 *
 * TWO MODELS. Compile them with two names, for the same MDY_GRAD_BITS and MDY_ROUND_ONCE; link the runtime once, give each a
 * mdy_t, a NAME_memory and a mdy_flash_t over sectors of its own. They share nothing.
 *
 * C11, C++11 and later. Every fallible call returns 0 or a negative mdy_status_t. Nothing allocates, recurses or uses float.
 */
#ifndef MDY_MDY_H
#define MDY_MDY_H

#include "mdy/model.h"
#include "mdy/setup.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What the application chooses at start; NAME_DEFAULT_CONFIG has a value for each field. */
typedef struct {
    /**
     * Where the banks are: sectors, and four hooks for them (mdy/flash.h); they are called by mdy_init and by what commits or
     * forgets, read also by what looks at weights. NULL only with weights in RAM. Is it kept? The pointer is. May a hook
     * fail? Yes: MDY_FLASH, it is tried once more. May it block? As long as the part takes. May it move the sectors?
     * Never while this mdy_t lives.
     */
    const mdy_flash_t *flash;
    uint32_t seed;           /* of all random numbers; a committed generation brings its own */
    mdy_schedule_t schedule; /* likewise; {MDY_RATE(0.02), 0, 0, 0, MDY_CLIP(0.3)}, or all 0 where nothing is trained */
    uint8_t head_only;       /* 1: train the classifier alone; likewise */
    uint8_t flip;            /* 1: flip training samples left to right at random; likewise */
    uint8_t fresh;           /* 1: start from the factory weights, whatever the banks hold; erases nothing by itself */
    uint8_t shift;           /* training samples are moved by up to so many pixels, up to MDY_SHIFT_MAX; likewise */
    uint8_t smoothing;       /* of labels, in 1/256, up to MDY_SMOOTHING_MAX: so much of a label goes to all classes */
    /**
     * Called within steps and inferences, see WHAT YIELDS; NULL: never. Nonzero ends the call with MDY_ABORTED. May it call
     * this header? Not for the same mdy_t. How long may it take? As long as it likes. How often is it called? At least
     * once for each layer and direction.
     */
    int (*yield)(void *context);
    void *yield_context; /* is handed over as it is */
    /**
     * Gives row `row` of the sample, W * C values, where the plan has no place for all of it (mdy_input is NULL): called in
     * the middle of a step, in ascending order, once for each row. NULL only where mdy_input is not. Nonzero ends the call
     * with MDY_ABORTED. Are all rows asked for? Not the last ones of a sample that is moved down. May it wait for a camera?
     * Yes, nothing else depends on time. May `values` be kept? Not beyond the call.
     */
    int (*load)(void *context, uint16_t row, int8_t *values);
    void *load_context; /* is handed over as it is */
} mdy_config_t;

/** What one sample gave. */
typedef struct {
    uint32_t loss;       /* cross-entropy in nats or mean squared error, Q16 */
    uint16_t prediction; /* class of the largest logit */
} mdy_result_t;

/**
 * Lays out the regions and loads the newest valid generation, or the factory state when there is none. What the
 * banks held is in m->found, also after MDY_MODEL; with weights in RAM they are not looked at.
 *
 * Memory   one piece for each region, MDY_MODEL_PLANNED_BYTES, _EPOCH_BYTES and _STATE_BYTES, aligned to 8; its
 *          contents do not matter. The generated mdy_memory lies where the plan has room for it. Only the pointers
 *          are kept.
 * Errors   MDY_ARENA (a region is too small or misaligned), MDY_ARGUMENT (no flash, schedule, shift, smoothing, no
 *          load hook), MDY_MODEL (the banks hold generations of another network, plan or format only), MDY_FLASH (the
 *          banks do not fit)
 */
mdy_status_t mdy_init(mdy_t *m, const mdy_model_t *model, const mdy_memory_t *memory, const mdy_config_t *config);

/** Where the next sample goes: H * W * C int8 values, used up by each step or inference; NULL: it comes by rows. */
int8_t *mdy_input(mdy_t *m);

/**
 * Where the targets of the next step go: one int32 in Q16 for each output of a head that is trained by
 * squared error; NULL for other heads. They are used up like the sample.
 */
int32_t *mdy_target(mdy_t *m);

/**
 * One training step on the sample in mdy_input: forward, backward, update of the selected channels, the trained biases
 * and the head. Of a model with batches the update comes with a batch's last sample; it yields between layers, but is
 * not left half done. Errors: MDY_ARGUMENT (label, or a schedule whose rate is 0), MDY_ABORTED (by the yield hook; updates
 * that were made stay).
 * With a squared error the label says nothing; give 0.
 */
mdy_status_t mdy_train_step(mdy_t *m, uint16_t label, mdy_result_t *result);

/**
 * Forward pass on the sample in mdy_input. The loss is that of `label`, or 0 where `label` is no class.
 * Without a head the prediction is the position of the first largest output, and the loss is 0.
 */
mdy_status_t mdy_infer(mdy_t *m, uint16_t label, mdy_result_t *result);

/** What the last operation made of the last sample: H * W * C int8 values; without a head, the network's output. */
const int8_t *mdy_output(const mdy_t *m);

/** Logits of the last sample: one int32 per class, Q16. */
const int32_t *mdy_logits(const mdy_t *m);

/**
 * Makes what was learned since the last generation a trial: ends the last batch, so that mdy_infer computes with exactly
 * the numbers that mdy_accept would keep. The trial lives in RAM alone. Judge it with mdy_infer on samples that were kept
 * for that; mdy_accept or mdy_reject must follow.
 */
void mdy_try_epoch(mdy_t *m);

/**
 * Ends the epoch: writes the observed norms into N, draws the next selection, commits one generation
 * to the other bank and only then clears the deltas. After an error the old generation stands; training may go
 * on, and the call may be repeated. Errors: MDY_FLASH (refused twice, m->fault tells the sector), MDY_DAMAGED (the
 * generation in use has changed in flash: mdy_init loads the one before it). With weights in RAM the deltas are added
 * there, and nothing fails. Source: MeDyate, arXiv 2510.20979, algorithm 1; DESIGN.md sections 4 and 6.
 */
mdy_status_t mdy_accept(mdy_t *m);

/**
 * Drops the trial: everything is as the generation in use, or the factory, left it, and nothing of the trial was ever in
 * flash. The same samples would teach the same again. Errors: MDY_ARGUMENT (with weights in RAM nothing was kept to go
 * back to), MDY_DAMAGED (the generation in use has changed in flash: mdy_init loads the one before it).
 */
mdy_status_t mdy_reject(mdy_t *m);

/** mdy_try_epoch and mdy_accept in one, for applications that judge nothing. Errors: those of mdy_accept. */
mdy_status_t mdy_end_epoch(mdy_t *m);

/** Forgets the newest generation; mdy_init, which must follow, takes the one before. Errors: MDY_EMPTY (none, or weights in RAM), MDY_MODEL, MDY_FLASH. */
mdy_status_t mdy_roll_back(mdy_t *m);

/**
 * Forgets both banks; mdy_init, which must follow, starts from the factory. A power cut leaves the newest generation or
 * none. With `wipe` every reserved sector and the three regions are erased, so that nothing learned is left; a wipe that
 * was cut short is to be repeated. Errors: MDY_FLASH (a sector refused: m->fault; the others are erased all the same).
 */
mdy_status_t mdy_factory_reset(mdy_t *m, int wipe);

/**
 * Replaces this epoch's selection by the first counts[i] channels of each candidate layer: the
 * worst case for measurements. Deltas and the samples of an unfinished batch are lost. Errors: MDY_ARENA (does not fit), MDY_ARGUMENT.
 */
mdy_status_t mdy_force_selection(mdy_t *m, const uint16_t *counts);

#ifdef __cplusplus
}
#endif

#endif
