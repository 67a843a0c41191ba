/* SPDX-License-Identifier: Apache-2.0 */
/** The USART of the STM32F7 and H7. Source: RM0385, 31.8 (RM0433, 48.7, whose FIFO stays off). */
#include "stm32/usart.h"

#define USART_CR1 MDY_REG(MDY_USART + 0x00U) /* 31.8.1 */
#define USART_BRR MDY_REG(MDY_USART + 0x0CU) /* 31.8.4: clock / baud, with 16 samples a bit */
#define USART_ISR MDY_REG(MDY_USART + 0x1CU) /* 31.8.8 */
#define USART_ICR MDY_REG(MDY_USART + 0x20U) /* 31.8.9 */
#define USART_RDR MDY_REG(MDY_USART + 0x24U) /* 31.8.10 */
#define USART_TDR MDY_REG(MDY_USART + 0x28U) /* 31.8.11 */

#define CR1_UE (1U << 0)
#define CR1_RE (1U << 2)
#define CR1_TE (1U << 3)
#define CR1_RXNEIE (1U << 5)
#define ISR_ORE (1U << 3)
#define ISR_RXNE (1U << 5)
#define ISR_TXE (1U << 7)

void mdy_usart_start(uint32_t hz)
{
    USART_BRR = (hz + MDY_BAUD / 2U) / MDY_BAUD; /* may be written while the USART is off */
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
}

bool mdy_uart_take(uint8_t *byte)
{
    const uint32_t status = USART_ISR;
    if ((status & ISR_ORE) != 0U) {
        USART_ICR = ISR_ORE; /* ORECF has the flag's place; without it the interrupt would not end */
    }
    if ((status & ISR_RXNE) == 0U) {
        return false;
    }
    *byte = (uint8_t)USART_RDR;
    return true;
}

bool mdy_uart_put(uint8_t byte)
{
    if ((USART_ISR & ISR_TXE) == 0U) {
        return false;
    }
    USART_TDR = byte;
    return true;
}
