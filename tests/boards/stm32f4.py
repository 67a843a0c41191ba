# SPDX-License-Identifier: Apache-2.0
"""STM32F405 (RM0090, DS8626) and STM32F411 (RM0383, DS10314)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import unicorn

from .flash import Cells, Sector, Times, sectors
from .machine import M4, Area, Block, Machine
from .stm32 import KEYS, FlashBlock, Gpio, Limits, Pins, Rcc, Stm32, Usart, UsartBlock, UsartOld, Watchdog, line_of
from .uart import Line


class FlashControl(FlashBlock):
    """The flash interface of F4 and F7: RM0090 3.6 to 3.9, RM0383 3.5 to 3.8, RM0385 3.3 to 3.7.

    A store into the flash is an operation, or it is refused and sets an error flag; 3.6.4 says when.
    """

    name = "FLASH"
    ACR, KEYR, OPTKEYR, SR, CR, OPTCR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14
    EOP, OPERR, WRPERR, PGAERR, PGPERR, PGSERR = 1 << 0, 1 << 1, 1 << 4, 1 << 5, 1 << 6, 1 << 7
    """PGSERR is called ERSERR on the F7 (RM0385 3.7.4)."""
    BSY = 1 << 16
    PG, SER, MER, STRT, EOPIE, ERRIE, LOCK = 1 << 0, 1 << 1, 1 << 2, 1 << 16, 1 << 24, 1 << 25, 1 << 31
    IRQ = 4

    def __init__(self, machine: Machine, cells: Cells, word: Times, erase: Mapping[int, tuple[Times, ...]],
                 sequence_flag: str, acr_bits: int, check_clocks: Callable[[], None]) -> None:  # fmt: skip
        super().__init__(machine, 0x40023C00)
        self.cells, self.word, self.erase_times = cells, word, erase
        self.sequence_flag, self.acr_bits, self.check_clocks = sequence_flag, acr_bits, check_clocks
        self.values = {self.CR: self.LOCK, self.OPTCR: 0x0FFFAAED}
        self.keys: list[int] = []
        self.jammed = False
        """A wrong key: locked until the next reset."""
        self.first, self.second = KEYS

    def latency(self) -> int:
        return self.values.get(self.ACR, 0) & 15

    def fail(self, flag: int, what: str) -> None:
        self.refuse(what)
        self.values[self.SR] = self.values.get(self.SR, 0) | flag
        if self.values[self.CR] & self.ERRIE:
            self.values[self.SR] |= self.OPERR
            self.machine.line(self.IRQ, True)

    def fetch(self, offset: int) -> int:
        if offset == self.SR:
            return self.values.get(offset, 0) | (self.BSY if self.cells.poll() else 0)
        return 0 if offset in (self.KEYR, self.OPTKEYR) else self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        if offset == self.KEYR:
            self.key(value)
        elif offset == self.SR:
            self.values[offset] = self.values.get(offset, 0) & ~value
            if not self.values[offset] & (self.EOP | self.OPERR):
                self.machine.line(self.IRQ, False)
        elif offset == self.CR:
            self.set_control(value)
        elif offset == self.ACR:
            self.values[offset] = value & self.acr_bits
            self.check_clocks()
        else:
            self.refuse("option bytes are written")

    def key(self, value: int) -> None:
        """3.6.1: any other sequence locks CR until the next reset, and is a bus error."""
        if self.jammed:
            self.refuse("KEYR is written after a wrong key")
        elif not self.values[self.CR] & self.LOCK:
            self.refuse("KEYR is written while unlocked")
        elif value == self.first and not self.keys:
            self.keys.append(value)
        elif value == self.second and self.keys:
            self.keys.clear()
            self.values[self.CR] &= ~self.LOCK
        else:
            self.jammed = True
            self.refuse("a wrong key")
            self.machine.system.bus_fault(None)

    def set_control(self, value: int) -> None:
        self.cells.finish()  # 3.9.5: the write waits
        if self.values[self.CR] & self.LOCK:
            self.refuse("CR is written while locked")
            return
        self.values[self.CR] = value & ~self.STRT
        if value & self.STRT:
            self.start(value)

    def start(self, value: int) -> None:
        number, kinds = value >> 3 & 15, value & (self.SER | self.MER)
        if value & self.PG or kinds not in (self.SER, self.MER):
            self.fail(self.PGSERR, f"{self.sequence_flag}: STRT with PG, or without SER or MER alone")
        elif kinds == self.SER and number >= len(self.cells.layout):
            self.fail(self.PGSERR, f"{self.sequence_flag}: there is no sector {number}")
        else:
            for n in range(len(self.cells.layout)) if kinds == self.MER else (number,):
                self.erase(n, value >> 8 & 3)

    def protected(self, number: int) -> bool:
        return not self.values[self.OPTCR] >> 16 + number & 1

    def erase(self, number: int, parallelism: int) -> None:
        if self.protected(number):
            self.fail(self.WRPERR, f"WRPERR: sector {number} is protected")
        elif parallelism == 3:
            self.fail(self.PGPERR, "PGPERR: x64 needs an external supply on VPP")
        else:
            self.cells.finish()
            self.cells.erase(number, self.erase_times[self.cells.layout[number].size >> 10][parallelism])
            self.begun()

    def begun(self) -> None:
        """Code in the flash waits for the end (3.5: a fetch stalls); other code sees BSY."""
        cells = self.cells
        if cells.holds(self.machine.pc):
            cells.finish()
        else:
            self.machine.clock.shut_from, self.machine.clock.shut_size = cells.address, cells.size
        if self.values[self.CR] & self.EOPIE:
            self.machine.after(max(1, cells.busy_until[0] - self.machine.now), self.ended)

    def ended(self) -> None:
        self.values[self.SR] = self.values.get(self.SR, 0) | self.EOP
        self.machine.line(self.IRQ, True)

    def program(self, address: int, size: int, value: int) -> None:
        control, offset = self.values[self.CR], address - self.cells.address
        parallelism = control >> 8 & 3
        number = self.cells.sector_at(offset)
        if control & self.LOCK:
            self.fail(self.PGSERR, f"{self.sequence_flag}: a store while locked")
        elif control & (self.PG | self.SER | self.MER) != self.PG:
            self.fail(self.PGSERR, f"{self.sequence_flag}: a store without PG alone")
        elif self.protected(number):
            self.fail(self.WRPERR, f"WRPERR: sector {number} is protected")
        elif size != 1 << parallelism:
            self.fail(self.PGPERR, f"PGPERR: a store of {size} bytes at x{8 << parallelism}")
        elif parallelism == 3:
            self.fail(self.PGPERR, "PGPERR: x64 needs an external supply on VPP")
        elif offset % 16 + size > 16:
            self.fail(self.PGAERR, "PGAERR: a store across a row of 16 bytes")
        elif offset % size:
            self.fail(self.PGAERR, "PGAERR: a store that is not aligned")
        else:
            data = value.to_bytes(size, "little")
            if self.cells.sets_bits(offset, data):
                self.refuse("bits go from 0 to 1 without an erase")
            self.cells.finish()
            self.cells.program(offset, data, self.word)
            self.begun()


F405_USARTS = (
    Usart("USART1", 0x40011000, 37, (0x44, 4), "PA9:7 PB6:7", "PA10:7 PB7:7"),
    Usart("USART2", 0x40004400, 38, (0x40, 17), "PA2:7 PD5:7", "PA3:7 PD6:7"),
    Usart("USART3", 0x40004800, 39, (0x40, 18), "PB10:7 PC10:7 PD8:7", "PB11:7 PC11:7 PD9:7"),
    Usart("USART6", 0x40011400, 71, (0x44, 5), "PC6:8 PG14:8", "PC7:8 PG9:8"),
)
F411_USARTS = (
    Usart("USART1", 0x40011000, 37, (0x44, 4), "PA9:7 PB6:7 PA15:7", "PA10:7 PB7:7 PB3:7"),
    Usart("USART2", 0x40004400, 38, (0x40, 17), "PA2:7 PD5:7", "PA3:7 PD6:7"),
    Usart("USART6", 0x40011400, 71, (0x44, 5), "PC6:8 PA11:8", "PC7:8 PA12:8"),
)

F4_WORD = Times(16, 100)
F4_ERASE = {
    16: (Times(400e3, 800e3), Times(300e3, 600e3), Times(250e3, 500e3)),
    64: (Times(1200e3, 2400e3), Times(700e3, 1400e3), Times(550e3, 1100e3)),
    128: (Times(2000e3, 4000e3), Times(1300e3, 2600e3), Times(1000e3, 2000e3)),
}
"""By KiB of the sector and PSIZE. DS8626 table 40, DS10314 "Flash memory programming"."""


class Power(Block):
    """PWR of the F4: RM0090 5.4, RM0383 5.4."""

    name = "PWR"
    CR, CSR = 0x00, 0x04
    changed: Callable[[], None]

    def __init__(self, machine: Machine, reset: int) -> None:
        super().__init__(machine, 0x40007000)
        self.values[self.CR] = reset

    def fetch(self, offset: int) -> int:
        return 1 << 14 if offset == self.CSR else self.values.get(offset, 0)  # VOSRDY

    def store(self, offset: int, value: int) -> None:
        self.values[offset] = value
        self.changed()


class Classic(Stm32):
    """What parts of the F4 and F7 families share."""

    layout: tuple[Sector, ...]
    usarts: tuple[Usart, ...]
    ports: str
    word: Times
    erase_times: Mapping[int, tuple[Times, ...]]
    places: tuple[int, ...]
    """Where the core sees the flash."""
    sequence_flag = "PGSERR"
    acr_bits: int
    usart_block: type[UsartBlock]

    def __init__(self, lines: Mapping[str, Line] | None = None, *, crystal: float = 8e6, dead: Iterable[str] = (),
                 seed: int = 0) -> None:  # fmt: skip
        self.hz = 16e6
        super().__init__(dead=dead, seed=seed)
        self.uarts, self.crystal = dict(lines or {}), crystal
        self.cells = Cells(self, 0x08000000, self.layout)

    def core_mhz(self) -> float:
        """The highest HCLK at the present voltage scale."""
        raise NotImplementedError

    def limits(self) -> Limits:
        """What the clocks may reach now."""
        raise NotImplementedError

    def make_power(self) -> Power:
        raise NotImplementedError

    def kernel(self, usart: Usart) -> Callable[[], float]:
        """The clock that a USART divides."""
        return (lambda: self.rcc.pclk2) if usart.enable[0] == Rcc.APB2ENR else (lambda: self.rcc.pclk1)

    def build(self) -> None:
        self.cells.map(*self.places)
        self.rcc = rcc = Rcc(self, self.crystal, self.limits, self.core_mhz)
        self.add(rcc)
        self.power = self.make_power()
        self.power.clocked, self.power.changed = rcc.enabled(Rcc.APB1ENR, 28), rcc.check
        self.add(self.power)
        control = FlashControl(
            self, self.cells, self.word, self.erase_times, self.sequence_flag, self.acr_bits, rcc.check
        )
        self.control, rcc.latency = control, control.latency
        self.add(control)
        ports = {}
        for letter in self.ports:
            number = ord(letter) - ord("A")
            port = Gpio(self, 0x40020000 + 0x400 * number)
            port.name, port.clocked = f"GPIO{letter}", rcc.enabled(Rcc.AHB1ENR, number)
            port.values = {0: {"A": 0xA8000000, "B": 0x280}.get(letter, 0)}  # JTAG and SWD, RM0090 8.4.1
            ports[letter] = port
            self.add(port)
        for usart in self.usarts:
            block = self.usart_block(self, usart, line_of(self.uarts, usart.name), self.kernel(usart), Pins(ports))
            block.clocked = rcc.enabled(*usart.enable)
            self.add(block)
        self.add(Watchdog(self, 0x40003000))
        self.plain(("SYSCFG", 0x40013800), ("EXTI", 0x40013C00), ("WWDG", 0x40002C00), ("RTC", 0x40002800))


class F4(Classic):
    """What the F405 and the F411 share."""

    core = M4
    word, erase_times = F4_WORD, F4_ERASE
    places = (0x08000000, 0)
    """BOOT0 low: the flash is at 0, too (RM0090 2.4)."""
    acr_bits = 0x1F0F
    usart_block = UsartOld
    power_reset: int

    def make_power(self) -> Power:
        return Power(self, self.power_reset)

    def build(self) -> None:
        super().build()
        self.uc.mem_map(0x1FFF7000, 0x1000, unicorn.UC_PROT_READ)  # device signature, flash size (RM0090 39)


class F405(F4):
    """STM32F405xG."""

    rams = (Area("SRAM1+2", 0x20000000, 128 << 10), Area("CCM", 0x10000000, 64 << 10))
    layout = sectors((4, 16), (1, 64), (7, 128))
    usarts, ports = F405_USARTS, "ABCDEFGHI"
    power_reset = 1 << 14

    def limits(self) -> Limits:
        """DS8626 table 14; RM0090 table 10."""
        return Limits(42, 84, (30, 60, 90, 120, 150, 168))

    def core_mhz(self) -> float:
        return 168 if self.power.values[0] & 1 << 14 else 144


class F411(F4):
    """STM32F411xE."""

    rams = (Area("SRAM", 0x20000000, 128 << 10),)
    layout = sectors((4, 16), (1, 64), (3, 128))
    usarts, ports = F411_USARTS, "ABCDEH"
    power_reset = 2 << 14

    def limits(self) -> Limits:
        """DS10314 table 14; RM0383 table 5."""
        return Limits(50, 100, (30, 64, 90, 100))

    def core_mhz(self) -> float:
        return {1: 64.0, 2: 84.0, 3: 100.0}.get(self.power.values[0] >> 14 & 3, 0.0)
