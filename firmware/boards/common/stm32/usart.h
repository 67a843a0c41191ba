/* SPDX-License-Identifier: Apache-2.0 */
/** A USART of an STM32; which one, MDY_USART says: the address of its registers. */
#ifndef MDY_STM32_USART_H
#define MDY_STM32_USART_H

#include "cortex_m/board.h"

/** 8 data bits, no parity, one stop bit, an interrupt for each byte received; `hz`: the USART's own clock. */
void mdy_usart_start(uint32_t hz);

#endif
