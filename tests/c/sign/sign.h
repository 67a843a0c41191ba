/* SPDX-License-Identifier: Apache-2.0 */
/* Another optimiser: a weight goes one step against its gradient's sign, and its record counts how often it went. */
#ifndef SIGN_H
#define SIGN_H

#include "mdy/update.h"

extern const mdy_optimizer_t sign_descent;

#endif
