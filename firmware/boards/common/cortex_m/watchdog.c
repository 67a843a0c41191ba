/* SPDX-License-Identifier: Apache-2.0 */
#include "cortex_m/board.h"

/* In a file of its own, so that the stack's bound is of the function that is linked, the application's or this one. */
__attribute__((weak)) void mdy_port_watchdog(void)
{
}
