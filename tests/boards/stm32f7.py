# SPDX-License-Identifier: Apache-2.0
"""STM32F746xG: RM0385, DS10916."""

from __future__ import annotations

from collections.abc import Callable

from .flash import Times, sectors
from .machine import M7, Area, BoardError, Machine
from .stm32 import HSI_HZ, Limits, Usart, UsartNew
from .stm32f4 import Classic, Power

USARTS = (
    Usart("USART1", 0x40011000, 37, (0x44, 4), "PA9:7 PB6:7", "PA10:7 PB7:7"),
    Usart("USART2", 0x40004400, 38, (0x40, 17), "PA2:7 PD5:7", "PA3:7 PD6:7"),
    Usart("USART3", 0x40004800, 39, (0x40, 18), "PB10:7 PC10:7 PD8:7", "PB11:7 PC11:7 PD9:7"),
    Usart("USART6", 0x40011400, 71, (0x44, 5), "PC6:8 PG14:8", "PC7:8 PG9:8"),
)
F7_ERASE = {
    32: (Times(400e3, 800e3), Times(250e3, 600e3), Times(200e3, 500e3)),
    128: (Times(1100e3, 2400e3), Times(800e3, 1400e3), Times(500e3, 1100e3)),
    256: (Times(2100e3, 4000e3), Times(1500e3, 2600e3), Times(1000e3, 2000e3)),
}
"""By KiB of the sector and PSIZE: DS10916, "Flash memory programming"."""
KERNEL_SHIFTS = {"USART1": 0, "USART2": 2, "USART3": 4, "USART6": 10}


class OverdrivePower(Power):
    """PWR of the F7: RM0385 4.4; over-drive: 4.1.4."""

    VOSRDY, ODEN, ODSWEN = 1 << 14, 1 << 16, 1 << 17

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, 0xC000)

    def fetch(self, offset: int) -> int:
        if offset != self.CSR:
            return super().fetch(offset)
        control = self.values[self.CR]
        return self.VOSRDY | control & self.ODEN | (control & self.ODSWEN if control & self.ODEN else 0)

    def store(self, offset: int, value: int) -> None:
        if offset == self.CR and value & self.ODSWEN and not self.values[self.CR] & self.ODEN:
            self.refuse("ODSWEN is set before ODEN")
            value &= ~self.ODSWEN
        super().store(offset, value)

    def overdrive(self) -> bool:
        return self.values[self.CR] & (self.ODEN | self.ODSWEN) == self.ODEN | self.ODSWEN


class F746(Classic):
    """STM32F746xG. It starts from the flash as the ITCM bus sees it: BOOT_ADD0 is 0x0080 (RM0385 2.5)."""

    core = M7
    rams = (
        Area("ITCM", 0x00000000, 16 << 10),
        Area("DTCM", 0x20000000, 64 << 10),
        Area("SRAM1", 0x20010000, 240 << 10),
        Area("SRAM2", 0x2004C000, 16 << 10),
    )
    layout = sectors((4, 32), (1, 128), (3, 256))
    word = Times(16, 100)
    erase_times = F7_ERASE
    places = (0x08000000, 0x00200000)
    sequence_flag = "ERSERR"
    acr_bits = 0xB0F
    usarts, ports = USARTS, "ABCDEFGHIJK"
    usart_block = UsartNew
    power: OverdrivePower

    def entry(self) -> int:
        return 0x00200000

    def make_power(self) -> Power:
        return OverdrivePower(self)

    def core_mhz(self) -> float:
        """DS10916, "General operating conditions"."""
        overdrive = self.power.overdrive()
        return {1: 144.0, 2: 180.0 if overdrive else 168.0, 3: 216.0 if overdrive else 180.0}.get(
            self.power.values[0] >> 14 & 3, 0.0
        )

    def limits(self) -> Limits:
        """RM0385 table 7."""
        states = (30, 60, 90, 120, 150, 180, 210, 216)
        return Limits(54, 108, states) if self.power.overdrive() else Limits(45, 90, states)

    def kernel(self, usart: Usart) -> Callable[[], float]:
        """RCC_DCKCFGR2 (RM0385 5.3.26)."""
        bus = super().kernel(usart)

        def hz() -> float:
            chosen = self.rcc.values.get(0x90, 0) >> KERNEL_SHIFTS[usart.name] & 3
            if chosen == 3:
                raise BoardError(f"{usart.name} runs from the LSE.", "Take the bus clock, SYSCLK or HSI here.")
            return (bus(), self.rcc.sysclk, HSI_HZ)[chosen]

        return hz
