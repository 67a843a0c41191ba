/* SPDX-License-Identifier: Apache-2.0 */
/* The longest sums with the largest terms: what the sanitizer sees is what a network could reach. */
#include "mdy/fixed.h"
#include "mdy/ops/move.h"
#include "mdy/ops/mul.h"
#include "mdy/ops/pool.h"
#include "mdy/ops/softmax.h"

#define SIZE 512
#define CARRY (INT32_C(1) << 28)

/* A channel's gradient of a factor that so many pixels share; *shift: the bits that its terms give up. */
int32_t probe_factor(uint32_t pixels, int sign, int *shift)
{
    const mdy_grad_t dy = (mdy_grad_t)(sign * MDY_GRAD_MAX);
    const int8_t other = -128;
    int32_t acc = 0;
    *shift = mdy_mul_shift(pixels);
    for (uint32_t i = 0; i < pixels; i++) {
        mdy_mul_gather(&dy, &other, 127, 1, *shift, &acc);
    }
    return acc;
}

static mdy_grad_t gradients[SIZE * SIZE];

static mdy_view_t filled(int sign)
{
    for (uint32_t i = 0; i < SIZE * SIZE; i++) {
        gradients[i] = (mdy_grad_t)(sign * MDY_GRAD_MAX);
    }
    const mdy_view_t view = {(uint8_t *)gradients, SIZE * sizeof *gradients, SIZE, 0};
    return view;
}

/* The gradient of a pixel that is copied so often down and to the right, behind the largest carry. */
int32_t probe_copies(int down, int right, int sign)
{
    const mdy_move_t p = {.axes = {0, 1, 2}, .step = {1, 1, 1}, .repeat = {(uint8_t)down, (uint8_t)right, 1}};
    const mdy_view_t dy = filled(sign);
    const mdy_shape_t shape = {SIZE, SIZE, 1};
    int32_t acc = sign * CARRY;
    mdy_move_gather(&p, shape, &dy, 0, 0, &acc);
    return acc;
}

/* The gradient of the pixel that most of the overlapping windows read. */
int32_t probe_windows(int kernel, int overlap_bits, int sign)
{
    const mdy_pool_t p = {.extent = {(uint8_t)kernel, (uint8_t)kernel, 1, 1, 0, 0},
                          .overlap_bits = (uint8_t)overlap_bits};
    const mdy_view_t dy = filled(sign);
    const mdy_shape_t y = {(uint16_t)kernel, (uint16_t)kernel, 1};
    const mdy_shape_t x = {(uint16_t)(2 * kernel - 1), (uint16_t)(2 * kernel - 1), 1};
    int32_t acc = sign * CARRY;
    mdy_pool_gather(&p, x, y, &dy, kernel - 1, kernel - 1, &acc);
    return acc;
}

/* Gradients of a softmax over 4,095 equal shares, and over one that is all. */
int32_t probe_shares(int one, int sign)
{
    static mdy_grad_t dy[4095];
    static int8_t y[4095];
    static int32_t acc[4095];
    for (uint32_t i = 0; i < 4095; i++) {
        dy[i] = (mdy_grad_t)(i == 0 ? sign * MDY_GRAD_MAX : -sign * MDY_GRAD_MAX);
        y[i] = (int8_t)(one != 0 && i == 0 ? 127 : one != 0 ? -128 : -127);
        acc[i] = sign * CARRY;
    }
    mdy_softmax_gather(dy, y, 4095, acc);
    return acc[0];
}

/* An output whose accumulator is at its end, of a multiplier that saturates. */
int probe_output(int32_t acc, int zero)
{
    return mdy_output8(mdy_requantize(acc, INT32_MAX, 30), zero, -128, 127);
}
