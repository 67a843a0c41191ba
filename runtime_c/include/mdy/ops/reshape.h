/* SPDX-License-Identifier: Apache-2.0 */
/** The same values in the same order under another shape; the copy needs no kernel of its own. */
#ifndef MDY_OPS_RESHAPE_H
#define MDY_OPS_RESHAPE_H

#include "mdy/model.h"

#endif
