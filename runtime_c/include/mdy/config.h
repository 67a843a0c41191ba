/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the runtime is built for; all models of a program share it, and their headers refuse another.
 *
 * Compiler options (-DMDY_GRAD_BITS=16) come first. In a package for another build system this file has the numbers of
 * the model that it was made for.
 */
#ifndef MDY_CONFIG_H
#define MDY_CONFIG_H

#include <stdint.h>

/** Bits of a stored gradient: 8 or 16. */
#ifndef MDY_GRAD_BITS
#define MDY_GRAD_BITS 8
#endif

/** How requantisation rounds: 0 twice, as TFLite's reference kernels; 1 once, as runtimes that divide in float. */
#ifndef MDY_ROUND_ONCE
#define MDY_ROUND_ONCE 0
#endif

#if MDY_GRAD_BITS == 16
typedef int16_t mdy_grad_t;
typedef int64_t mdy_wacc_t; /* a weight gradient's sum over the pixels: 15 + 8 + 16 bits */
#elif MDY_GRAD_BITS == 8
typedef int8_t mdy_grad_t;
typedef int32_t mdy_wacc_t; /* 7 + 8 + 16 bits */
#else
#error "MDY_GRAD_BITS must be 8 or 16"
#endif

#define MDY_GRAD_MAX ((1 << (MDY_GRAD_BITS - 1)) - 1)

#endif
