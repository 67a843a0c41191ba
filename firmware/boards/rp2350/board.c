/* SPDX-License-Identifier: Apache-2.0 */
/**
 * RP2350 on a Pico 2, Arm cores: 150 MHz from the crystal of 12 MHz, UART0 on GPIO0 (TX) and GPIO1 (RX). Sections:
 * RP2350 data sheet. The second core stays where the boot ROM parks it.
 */
#include "cortex_m/core.h"

#define MHZ 1000000U
#define XOSC_HZ (12U * MHZ)
#define CORE_HZ (150U * MHZ)
#define START_US 100000U

/* 7.5 Resets: a block is reset while its bit is set. */
#define RESETS_RESET MDY_REG(0x40020000U)
#define RESETS_DONE MDY_REG(0x40020008U)
#define RESET_IO_BANK0 (1U << 6)
#define RESET_PADS_BANK0 (1U << 9)
#define RESET_PLL_SYS (1U << 14)
#define RESET_UART0 (1U << 26)

/* 8.1.7 Clocks. SELECTED has one bit for each source of the glitchless multiplexer. */
#define CLK_REF_CTRL MDY_REG(0x40010030U)
#define CLK_REF_SELECTED MDY_REG(0x40010038U)
#define CLK_SYS_CTRL MDY_REG(0x4001003CU)
#define CLK_SYS_SELECTED MDY_REG(0x40010044U)
#define CLK_PERI_CTRL MDY_REG(0x40010048U)
#define REF_SRC_ROSC 0U
#define REF_SRC_XOSC 2U
#define SYS_SRC_REF 0U
#define SYS_SRC_AUX 1U         /* AUXSRC 0: PLL_SYS */
#define PERI_ENABLE (1U << 11) /* AUXSRC 0: the system's clock */

/* 8.2.8 Crystal oscillator. */
#define XOSC_CTRL MDY_REG(0x40048000U)
#define XOSC_STATUS MDY_REG(0x40048004U)
#define XOSC_STARTUP MDY_REG(0x4004800CU)
#define XOSC_ENABLE_15MHZ 0x00FABAA0U
#define XOSC_STABLE (1U << 31)
#define XOSC_DELAY 282U /* times 256 cycles: 6 ms, six times what 8.2.4 computes */

/* 8.6.5 PLL: 12 MHz x 125 = 1500 MHz, / 5 / 2. */
#define PLL_CS MDY_REG(0x40050000U)
#define PLL_PWR MDY_REG(0x40050004U)
#define PLL_FBDIV_INT MDY_REG(0x40050008U)
#define PLL_PRIM MDY_REG(0x4005000CU)
#define PLL_LOCK (1U << 31)
#define PLL_PWR_DSMPD (1U << 2)
#define PLL_PWR_POSTDIVPD (1U << 3)

/* 9.11 GPIO: IO_BANK0 CTRL and PADS_BANK0. */
#define GPIO_CTRL(n) MDY_REG(0x40028004U + 8U * (n))
#define PAD(n) MDY_REG(0x40038004U + 4U * (n))
#define FUNCSEL_UART 2U
#define PAD_UART 0x0000005AU /* input enabled, 4 mA, pulled up, Schmitt trigger; not isolated, output not disabled */

/* 12.1.8 UART0. */
#define UART_DR MDY_REG(0x40070000U)
#define UART_FR MDY_REG(0x40070018U)
#define UART_IBRD MDY_REG(0x40070024U)
#define UART_FBRD MDY_REG(0x40070028U)
#define UART_LCR_H MDY_REG(0x4007002CU)
#define UART_CR MDY_REG(0x40070030U)
#define UART_IMSC MDY_REG(0x40070038U)
#define FR_RXFE (1U << 4)
#define FR_TXFF (1U << 5)
#define LCR_H_8_BITS_FIFO (3U << 5 | 1U << 4)
#define CR_ON (1U << 9 | 1U << 8 | 1U << 0) /* RXE, TXE, UARTEN */
#define IMSC_RECEIVE (1U << 6 | 1U << 4)    /* what is in the FIFO waits too long, or is enough */

/* 5.9.5.1: what the boot ROM takes for an image; it begins with its vectors. */
__attribute__((section(".image_def"), used)) static const uint32_t image_def[] = {
    0xFFFFDED3U, 0x10210142U, 0x000001FFU, 0x00000000U, 0xAB123579U,
};

static bool release(uint32_t blocks)
{
    RESETS_RESET &= ~blocks;
    return mdy_wait(&RESETS_DONE, blocks, blocks, START_US);
}

/* The core's Hz: 150 MHz, else what the crystal gives. Without a crystal the ring oscillator goes on, taken for one of
 * 12 MHz: the UART is then too inexact to talk. */
static uint32_t start_clock(void)
{
    mdy_time_start(XOSC_HZ);    /* the ring oscillator is about as fast; it bounds waits only */
    CLK_SYS_CTRL = SYS_SRC_REF; /* the boot ROM, or a run before, may have left another */
    (void)mdy_wait(&CLK_SYS_SELECTED, 3U, 1U << SYS_SRC_REF, START_US);
    XOSC_STARTUP = XOSC_DELAY;
    XOSC_CTRL = XOSC_ENABLE_15MHZ;
    if (!mdy_wait(&XOSC_STATUS, XOSC_STABLE, XOSC_STABLE, START_US)) {
        return XOSC_HZ;
    }
    CLK_REF_CTRL = REF_SRC_XOSC;
    (void)mdy_wait(&CLK_REF_SELECTED, 0xFU, 1U << REF_SRC_XOSC, START_US);
    RESETS_RESET |= RESET_PLL_SYS;
    if (!release(RESET_PLL_SYS)) {
        return XOSC_HZ;
    }
    PLL_CS = 1U;
    PLL_FBDIV_INT = 125U;
    PLL_PWR = PLL_PWR_DSMPD | PLL_PWR_POSTDIVPD; /* 8.6.4: the oscillator first, then the dividers */
    if (!mdy_wait(&PLL_CS, PLL_LOCK, PLL_LOCK, START_US)) {
        return XOSC_HZ;
    }
    PLL_PRIM = 5U << 16 | 2U << 12;
    PLL_PWR = PLL_PWR_DSMPD;
    CLK_SYS_CTRL = SYS_SRC_AUX;
    if (!mdy_wait(&CLK_SYS_SELECTED, 3U, 1U << SYS_SRC_AUX, START_US)) {
        CLK_SYS_CTRL = SYS_SRC_REF;
        return XOSC_HZ;
    }
    mdy_time_start(CORE_HZ);
    return CORE_HZ;
}

void mdy_board_start(void)
{
    const uint32_t hz = start_clock();
    CLK_PERI_CTRL = PERI_ENABLE;
    (void)release(RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART0);
    for (uint32_t pin = 0; pin < 2U; pin++) {
        PAD(pin) = PAD_UART;
        GPIO_CTRL(pin) = FUNCSEL_UART;
    }
    const uint32_t divider = (8U * (hz / MDY_BAUD) + 1U) / 2U; /* of 16 samples a bit, in 1/64 */
    UART_IBRD = divider / 64U;
    UART_FBRD = divider % 64U;
    UART_LCR_H = LCR_H_8_BITS_FIFO; /* after the dividers, which it takes over */
    UART_IMSC = IMSC_RECEIVE;
    UART_CR = CR_ON;
}

bool mdy_uart_take(uint8_t *byte)
{
    if ((UART_FR & FR_RXFE) != 0U) {
        return false;
    }
    *byte = (uint8_t)UART_DR;
    return true;
}

bool mdy_uart_put(uint8_t byte)
{
    if ((UART_FR & FR_TXFF) != 0U) {
        return false;
    }
    UART_DR = byte;
    return true;
}
