/* SPDX-License-Identifier: Apache-2.0 */
/** The USART of the STM32F4. Source: RM0090, 30.6 (RM0383, 19.6). */
#include "stm32/usart.h"

#define USART_SR MDY_REG(MDY_USART + 0x00U)  /* 30.6.1 */
#define USART_DR MDY_REG(MDY_USART + 0x04U)  /* 30.6.2 */
#define USART_BRR MDY_REG(MDY_USART + 0x08U) /* 30.6.3: clock / baud, with 16 samples a bit */
#define USART_CR1 MDY_REG(MDY_USART + 0x0CU) /* 30.6.4 */

#define SR_ORE (1U << 3)
#define SR_RXNE (1U << 5)
#define SR_TXE (1U << 7)
#define CR1_RE (1U << 2)
#define CR1_TE (1U << 3)
#define CR1_RXNEIE (1U << 5)
#define CR1_UE (1U << 13)

void mdy_usart_start(uint32_t hz)
{
    USART_BRR = (hz + MDY_BAUD / 2U) / MDY_BAUD;
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
}

bool mdy_uart_take(uint8_t *byte)
{
    const uint32_t status = USART_SR;
    if ((status & (SR_RXNE | SR_ORE)) == 0U) {
        return false;
    }
    *byte = (uint8_t)USART_DR; /* after the status was read, this clears both */
    return (status & SR_RXNE) != 0U;
}

bool mdy_uart_put(uint8_t byte)
{
    if ((USART_SR & SR_TXE) == 0U) {
        return false;
    }
    USART_DR = byte;
    return true;
}
