# SPDX-License-Identifier: Apache-2.0
"""STM32H743xI: RM0433, DS12110."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import unicorn

from .flash import ERASED, EccCells, Times, sectors
from .machine import M7, Area, Block, BoardError, Machine
from .stm32 import KEYS, FlashBlock, Gpio, Oscillators, Pins, Stm32, Usart, UsartFifo, Watchdog, line_of
from .uart import Line

WORD_TIMES = (Times(290, 580), Times(180, 360), Times(130, 260), Times(100, 200))
ERASE_TIMES = (Times(2000e3, 4000e3), Times(1800e3, 3600e3), Times(1100e3, 2200e3), Times(1000e3, 2000e3))
"""By PSIZE: DS12110, "Flash memory programming": a flash word of 266 bits, a sector of 128 KiB."""


class FlashControl(FlashBlock):
    """The flash interface: RM0433 4.3 (use), 4.7 (errors), 4.9 (registers). Each bank has its own registers.

    Stores fill a buffer of 32 bytes, which is programmed when it is full or forced (4.3.9).
    """

    name = "FLASH"
    ACR, KEYR, OPTKEYR, CR, SR, CCR, OPTCR, OPTSR, WPSN, ECC_FA = (
        0,
        0x04,
        0x08,
        0x0C,
        0x10,
        0x14,
        0x18,
        0x1C,
        0x38,
        0x60,
    )
    LOCK, PG, SER, BER, FW, START = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 7
    BSY, WBNE, QW = 1 << 0, 1 << 1, 1 << 2
    EOP, WRPERR, PGSERR, STRBERR, INCERR, DBECCERR = 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 21, 1 << 26
    ERRORS = WRPERR | PGSERR | STRBERR | INCERR
    IRQ = 4

    def __init__(self, machine: Machine, cells: EccCells, check_clocks: Callable[[], None]) -> None:
        super().__init__(machine, 0x52002000)
        self.cells, self.check_clocks = cells, check_clocks
        self.values = {self.ACR: 0x37, self.OPTCR: 1}
        for bank in (0, 0x100):
            self.values |= {bank + self.CR: 0x31, bank + self.SR: 0, bank + self.WPSN: 0xFF}
        self.keys = [0, 0]
        """How many keys each bank has seen."""
        self.jammed = [False, False]
        self.buffers: list[dict[int, int]] = [{}, {}]
        """Bytes by offset in the cells."""

    def latency(self) -> int:
        return self.values[self.ACR] & 15

    def high_frequency(self) -> int:
        return self.values[self.ACR] >> 4 & 3

    def fail(self, bank: int, flag: int, what: str) -> None:
        self.refuse(what)
        self.values[bank * 0x100 + self.SR] |= flag
        self.lines()

    def lines(self) -> None:
        wanted = any(self.values[b + self.SR] & self.values[b + self.CR] & 0x0FFF0000 for b in (0, 0x100))
        self.machine.line(self.IRQ, wanted)

    def fetch(self, offset: int) -> int:
        bank, register = offset // 0x100 & 1, offset & 0xFF
        if register in (self.ACR, self.OPTCR, self.OPTSR):  # one register at two addresses
            return self.values.get(register, 0)
        if register == self.SR:
            busy = self.BSY | self.QW if self.cells.poll(bank) else 0
            return self.values[offset] | busy | (self.WBNE if self.buffers[bank] else 0)
        return self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        bank, register = offset // 0x100 & 1, offset & 0xFF
        match register:
            case self.ACR:
                self.values[self.ACR] = value & 0x3F
                self.check_clocks()
            case self.KEYR:
                self.key(bank, value)
            case self.CR:
                self.set_control(bank, value)
            case self.CCR:
                self.values[bank * 0x100 + self.SR] &= ~value
                self.lines()
            case self.SR:
                self.refuse("SR is written: flags are cleared in CCR")
            case _:
                self.refuse(f"{offset:#05x} is written: option bytes, CRC or nothing")

    def key(self, bank: int, value: int) -> None:
        """4.5.1: a wrong sequence, or one while unlocked, locks the bank until the next reset, and is a bus error."""
        control = bank * 0x100 + self.CR
        if self.jammed[bank]:
            self.refuse("KEYR is written after a wrong key")
        elif value != KEYS[self.keys[bank]] or not self.values[control] & self.LOCK:
            self.refuse("a wrong key" if self.values[control] & self.LOCK else "KEYR is written while unlocked")
            self.jammed[bank] = True
            self.values[control] |= self.LOCK
            self.machine.system.bus_fault(None)
        elif self.keys[bank]:
            self.keys[bank] = 0
            self.values[control] &= ~self.LOCK
        else:
            self.keys[bank] = 1

    def set_control(self, bank: int, value: int) -> None:
        at = bank * 0x100 + self.CR
        if self.values[at] & self.LOCK:
            self.refuse("CR is written while locked")
            return
        self.cells.finish(bank)
        self.values[at] = value & ~(self.FW | self.START)
        if not value & self.PG and self.buffers[bank]:
            self.refuse("PG is cleared while the write buffer is not empty: what it holds is lost")
            self.buffers[bank].clear()
        if value & self.START:
            self.start(bank, value)
        if value & self.FW:
            self.force(bank)
        self.lines()

    def start(self, bank: int, value: int) -> None:
        kinds, count = value & (self.SER | self.BER), len(self.cells.layout) // 2
        chosen = range(count) if kinds == self.BER else (value >> 8 & 7,)
        if kinds not in (self.SER, self.BER):
            self.fail(bank, self.PGSERR, "PGSERR: START without SER or BER alone")
        elif self.buffers[bank]:
            self.fail(bank, self.PGSERR, "PGSERR: an erase while the write buffer is not empty")
        elif self.values[bank * 0x100 + self.SR] & self.ERRORS:
            self.fail(bank, self.PGSERR, "PGSERR: an erase while an error flag is set")
        elif any(not self.values[bank * 0x100 + self.WPSN] >> number & 1 for number in chosen):
            self.fail(bank, self.WRPERR, "WRPERR: the sector is protected")
        else:
            for number in chosen:
                self.cells.finish(bank)
                self.cells.erase(bank * count + number, ERASE_TIMES[value >> 4 & 3])
                self.begun(bank)

    def begun(self, bank: int) -> None:
        """Code in the bank waits for the end (4.3.8, 4.3.9: loads and fetches stall); other code sees BSY and QW."""
        cells = self.cells
        size = cells.size // 2
        start = cells.address + bank * size
        if start <= self.machine.pc < start + size:
            cells.finish(bank)
        else:
            self.machine.clock.shut_from, self.machine.clock.shut_size = start, size
        self.machine.after(max(1, cells.busy_until[bank] - self.machine.now), lambda: self.ended(bank))

    def ended(self, bank: int) -> None:
        self.values[bank * 0x100 + self.SR] |= self.EOP
        self.lines()

    def program(self, address: int, size: int, value: int) -> None:
        """4.3.9: into the buffer, if nothing forbids it."""
        offset = address - self.cells.address
        bank = self.cells.bank_at(offset)
        buffer, control, status = self.buffers[bank], self.values[bank * 0x100 + self.CR], bank * 0x100 + self.SR
        places = range(offset, offset + size)
        if control & self.LOCK:
            self.fail(bank, self.PGSERR, "PGSERR: a store while locked")
        elif not control & self.PG:
            self.fail(bank, self.PGSERR, "PGSERR: a store without PG")
        elif self.values[status] & self.ERRORS:
            self.fail(bank, self.PGSERR, "PGSERR: a store while an error flag is set")
        elif offset % size:
            buffer.clear()
            self.fail(bank, self.INCERR, "INCERR: a store that is not aligned")
        elif buffer and next(iter(buffer)) // 32 != offset // 32:
            buffer.clear()
            self.fail(bank, self.INCERR, "INCERR: another flash word before the last was full")
        elif any(place in buffer for place in places):
            buffer.clear()
            self.fail(bank, self.STRBERR, "STRBERR: a byte twice")
        else:
            buffer.update(zip(places, value.to_bytes(size, "little"), strict=True))
            if len(buffer) == 32:
                self.commit(bank)

    def force(self, bank: int) -> None:
        """CR.FW: the rest of the word is ones."""
        buffer = self.buffers[bank]
        if buffer:
            first = next(iter(buffer)) & ~31
            for place in range(first, first + 32):
                buffer.setdefault(place, 0xFF)
            self.commit(bank)

    def commit(self, bank: int) -> None:
        buffer, cells = self.buffers[bank], self.cells
        offset = min(buffer)
        data = bytes(buffer[offset + n] for n in range(32))
        buffer.clear()
        number = cells.sector_at(offset) % (len(cells.layout) // 2)
        if not self.values[bank * 0x100 + self.WPSN] >> number & 1:
            self.fail(bank, self.WRPERR, "WRPERR: the sector is protected")
            return
        if cells.states[offset // 32] != ERASED:
            self.refuse("a flash word is programmed twice without an erase: its ECC breaks")
        cells.finish(bank)
        cells.program(offset, data, WORD_TIMES[self.values[bank * 0x100 + self.CR] >> 4 & 3])
        self.begun(bank)

    def broken(self, offset: int) -> None:
        """4.7.9: a double error; 4.9.23: its word."""
        bank = self.cells.bank_at(offset)
        self.values[bank * 0x100 + self.SR] |= self.DBECCERR
        self.values[bank * 0x100 + self.ECC_FA] = offset % (self.cells.size // 2) // 32
        self.lines()


class Power(Block):
    """PWR: RM0433 6.8."""

    name = "PWR"
    CSR1, CR3, D3CR = 0x04, 0x0C, 0x18
    reset: ClassVar[dict[int, int]] = {0x00: 0xF000C000, 0x0C: 6, 0x18: 0x4000}
    changed: Callable[[], None]

    def __init__(self, machine: Machine, base: int) -> None:
        super().__init__(machine, base)
        self.supplied = False
        """CR3 has been written: before that, the voltage scale cannot be changed (6.4.1, 6.6.2)."""

    def scale(self) -> int:
        """1, 2 or 3; 3 is the slowest."""
        return 4 - max(1, self.values[self.D3CR] >> 14 & 3)

    def fetch(self, offset: int) -> int:
        value = self.values.get(offset, 0)
        if offset == self.CSR1:
            return self.supplied << 13 | self.values[self.D3CR] & 3 << 14
        return value | 1 << 13 if offset == self.D3CR else value

    def store(self, offset: int, value: int) -> None:
        if offset == self.CR3:
            if self.supplied and (value ^ self.values[offset]) & 7:
                self.refuse("CR3: the supply can be chosen once")
                return
            if value & 3 not in (1, 2):
                self.refuse("CR3: neither LDO nor bypass alone")
            self.supplied = True
        elif offset == self.D3CR and not self.supplied:
            self.refuse("VOS is written before the supply is chosen in CR3")
            return
        self.values[offset] = value
        self.changed()


class Rcc(Block):
    """RCC: RM0433 8.7. PLL2 and PLL3 get ready, and nothing runs from them here."""

    name = "RCC"
    CR, CFGR, D1CFGR, D2CFGR, PLLCKSELR, PLLCFGR, PLL1DIVR, PLL1FRACR = 0, 0x10, 0x18, 0x1C, 0x28, 0x2C, 0x30, 0x34
    D2CCIP2R, CSR, RSR, AHB2ENR, AHB4ENR, APB1LENR, APB2ENR, APB4ENR = 0x54, 0x74, 0xD0, 0xDC, 0xE0, 0xE8, 0xF0, 0xF4
    reset: ClassVar[dict[int, int]] = {
        0x00: 0x83,
        0x28: 0x02020200,
        0x2C: 0x01FF0000,
        0x30: 0x01010280,
        0x38: 0x01010280,
        0x40: 0x01010280,
        0xD0: 0x00E80000,
    }
    SOURCES = ("HSI", "CSI", "HSE", "PLL1")
    BITS: ClassVar[dict[str, tuple[int, int]]] = {
        "HSI": (0, 2),
        "CSI": (7, 8),
        "HSI48": (12, 13),
        "HSE": (16, 17),
        "PLL1": (24, 25),
        "PLL2": (26, 27),
        "PLL3": (28, 29),
    }
    AHB = (1,) * 8 + (2, 4, 8, 16, 64, 128, 256, 512)
    APB = (1,) * 4 + (2, 4, 8, 16)
    CORE_MHZ: ClassVar[dict[int, float]] = {0: 480.0, 1: 400.0, 2: 300.0, 3: 200.0}
    """By voltage scale; HCLK reaches half, the APBs a quarter. DS12110, "General operating conditions"."""
    LATENCY: ClassVar[dict[int, tuple[int, ...]]] = {
        0: (70, 140, 210, 225, 240),
        1: (70, 140, 210, 225, 225),
        2: (55, 110, 165, 225, 225),
        3: (45, 90, 135, 180, 225),
    }
    FREQUENCY: ClassVar[dict[int, tuple[int, ...]]] = {
        0: (70, 185, 240, 240),
        1: (70, 185, 225, 225),
        2: (55, 165, 225, 225),
        3: (45, 135, 225, 225),
    }
    """The highest AXI clock with so many wait states, with such a WRHIGHFREQ: RM0433 4.3.8, table 17."""

    def __init__(self, machine: Machine, crystal: float, power: Power, overdrive: Callable[[], bool]) -> None:
        super().__init__(machine, 0x58024400)
        self.crystal, self.power, self.overdrive = crystal, power, overdrive
        self.control: FlashControl | None = None
        self.source = self.wanted = "HSI"
        self.opened: Callable[[], None] = lambda: None
        self.oscillators = Oscillators(machine, self.settle)
        self.oscillators.started("HSI")
        self.oscillators.started("CSI")
        machine.set_hz(64e6)

    def enabled(self, register: int, bit: int) -> Callable[[], bool]:
        return lambda: bool(self.values.get(register, 0) >> bit & 1)

    def hz(self, source: str) -> float:
        if source == "PLL1":
            return self.vco() / ((self.values[self.PLL1DIVR] >> 9 & 127) + 1)
        return {"HSI": 64e6 / (1 << (self.values[self.CR] >> 3 & 3)), "CSI": 4e6, "HSE": self.crystal}[source]

    def pll_source(self) -> str | None:
        return ("HSI", "CSI", "HSE", None)[self.values[self.PLLCKSELR] & 3]

    def vco_in(self) -> float:
        source, divider = self.pll_source(), self.values[self.PLLCKSELR] >> 4 & 63
        return self.hz(source) / divider if source and divider else 0.0

    def vco(self) -> float:
        fraction = self.values.get(self.PLL1FRACR, 0) >> 3 & 0x1FFF if self.values[self.PLLCFGR] & 1 else 0
        return self.vco_in() * ((self.values[self.PLL1DIVR] & 511) + 1 + fraction / 8192)

    @property
    def core_hz(self) -> float:
        return self.hz(self.source) / self.AHB[self.values.get(self.D1CFGR, 0) >> 8 & 15]

    @property
    def hclk(self) -> float:
        return self.core_hz / self.AHB[self.values.get(self.D1CFGR, 0) & 15]

    @property
    def pclk1(self) -> float:
        return self.hclk / self.APB[self.values.get(self.D2CFGR, 0) >> 4 & 7]

    @property
    def pclk2(self) -> float:
        return self.hclk / self.APB[self.values.get(self.D2CFGR, 0) >> 8 & 7]

    def kernel(self, usart: Usart) -> Callable[[], float]:
        """D2CCIP2R (8.7.21): what clocks a USART."""
        shift, bus = (3, "pclk2") if usart.name in ("USART1", "USART6") else (0, "pclk1")

        def hz() -> float:
            chosen = self.values.get(self.D2CCIP2R, 0) >> shift & 7
            if chosen in (1, 2, 5):
                raise BoardError(f"{usart.name} runs from clock {chosen}.", "Take the bus clock, HSI or CSI here.")
            return float(getattr(self, bus)) if chosen == 0 else self.hz("HSI" if chosen == 3 else "CSI")

        return hz

    def settle(self) -> None:
        if self.wanted != self.source and self.oscillators.ready(self.wanted):
            self.source = self.wanted
        self.machine.set_hz(self.core_hz)
        self.check()

    def check(self) -> None:
        scale = self.power.scale()
        if scale == 1 and self.overdrive():
            scale = 0
        most = self.CORE_MHZ[scale]
        for name, hz, limit in (("the core's clock", self.core_hz, most), ("HCLK", self.hclk, most / 2),
                                ("PCLK1", self.pclk1, most / 4), ("PCLK2", self.pclk2, most / 4)):  # fmt: skip
            if hz > max(limit, 64) * 1e6 + 1:  # HSI after reset is within any limit
                self.refuse(f"{name} is {hz / 1e6:.1f} MHz, more than {limit:g} at VOS{scale}")
        if self.control is not None:
            mhz, states, frequency = self.hclk / 1e6, self.control.latency(), self.control.high_frequency()
            for name, limit in ((f"{states} wait states", self.LATENCY[scale][min(states, 4)]),
                                (f"WRHIGHFREQ {frequency}", self.FREQUENCY[scale][frequency])):  # fmt: skip
                if mhz > limit + 1e-6:
                    self.refuse(f"{name} of the flash at {mhz:.1f} MHz and VOS{scale}: allows {limit}")

    def check_pll(self) -> None:
        """8.5.5, 8.7.11: input, range, VCO."""
        source, config = self.pll_source(), self.values[self.PLLCFGR]
        if source is None or not self.oscillators.ready(source):
            self.refuse(f"PLL1 is turned on before {source} is ready")
        mhz, vco, medium, given = self.vco_in() / 1e6, self.vco() / 1e6, config >> 1 & 1, config >> 2 & 3
        if not (1 << given) <= mhz <= (2 << given):
            self.refuse(f"PLL1's input is {mhz:.3f} MHz, PLL1RGE says {1 << given} to {2 << given}")
        low, high = (150, 420) if medium else (192, 960)
        if not low <= vco <= high:
            self.refuse(f"PLL1's VCO is {vco:.1f} MHz, not {low} to {high}")
        divider = (self.values[self.PLL1DIVR] >> 9 & 127) + 1
        if divider % 2 and divider != 1:
            self.refuse(f"DIVP1 is {divider}: odd")

    def fetch(self, offset: int) -> int:
        value = self.values.get(offset, 0)
        if offset == self.CR:
            for name, (_, ready) in self.BITS.items():
                value = value & ~(1 << ready) | self.oscillators.ready(name) << ready
            return value | 3 << 14
        if offset == self.CFGR:
            return value & ~0x38 | self.SOURCES.index(self.source) << 3
        if offset == self.CSR:
            return value & ~2 | self.oscillators.ready("LSI") << 1
        return value

    def store(self, offset: int, value: int) -> None:
        pll = self.oscillators.on("PLL1")
        if offset in (self.PLL1DIVR, self.PLLCKSELR) and pll and value != self.values.get(offset):
            self.refuse("PLL1's dividers are written while it is on")
            return
        if offset == self.CR:
            value = self.turn(value)
        elif offset == self.CFGR:
            if value & 7 > 3:
                self.refuse(f"SW is {value & 7}")
                return
            self.wanted = self.SOURCES[value & 7]
            if not self.oscillators.on(self.wanted):
                self.refuse(f"the system clock is to be {self.wanted}, which is off")
            if self.wanted == "PLL1" and not self.values[self.PLLCFGR] >> 16 & 1:
                self.refuse("the system clock is to be PLL1 while DIVP1EN is clear")
        elif offset == self.CSR:
            self.oscillators.turn("LSI", bool(value & 1))
        self.values[offset] = value
        self.opened()
        if offset in (self.CR, self.CFGR, self.D1CFGR, self.D2CFGR):
            self.settle()

    def turn(self, value: int) -> int:
        self.values[self.CR] = value
        for name, (bit, _) in self.BITS.items():
            used = name in (self.source, self.wanted) or (self.oscillators.on("PLL1") and name == self.pll_source())
            on = bool(value >> bit & 1)
            if not on and used and self.oscillators.on(name) and (name != "HSI" or self.source == "HSI"):
                self.refuse(f"{name} is turned off while it is the system clock or feeds it")
                value |= 1 << bit
                on = True
            if on and name == "PLL1" and not self.oscillators.on(name):
                self.check_pll()
            self.oscillators.turn(name, on)
        return value


USARTS = (
    Usart("USART1", 0x40011000, 37, (Rcc.APB2ENR, 4), "PA9:7 PB6:7 PB14:4", "PA10:7 PB7:7 PB15:4"),
    Usart("USART2", 0x40004400, 38, (Rcc.APB1LENR, 17), "PA2:7 PD5:7", "PA3:7 PD6:7"),
    Usart("USART3", 0x40004800, 39, (Rcc.APB1LENR, 18), "PB10:7 PC10:7 PD8:7", "PB11:7 PC11:7 PD9:7"),
    Usart("USART6", 0x40011400, 71, (Rcc.APB2ENR, 5), "PC6:7 PG14:7", "PC7:7 PG9:7"),
)

D2_SRAMS = (Area("SRAM1", 0x30000000, 128 << 10), Area("SRAM2", 0x30020000, 128 << 10),
            Area("SRAM3", 0x30040000, 32 << 10))  # fmt: skip
"""RM0433 2.4: off until RCC_AHB2ENR turns their clocks on (8.5.15)."""


class H743(Stm32):
    """STM32H743xI."""

    core = M7
    rams = (
        Area("ITCM", 0x00000000, 64 << 10),
        Area("DTCM", 0x20000000, 128 << 10),
        Area("AXI SRAM", 0x24000000, 512 << 10),
        *D2_SRAMS,
        Area("SRAM4", 0x38000000, 64 << 10),
        Area("backup SRAM", 0x38800000, 4 << 10),
    )
    cells: EccCells
    control: FlashControl

    def __init__(self, lines: Mapping[str, Line] | None = None, *, crystal: float = 8e6, dead: Iterable[str] = (),
                 seed: int = 0) -> None:  # fmt: skip
        self.hz = 64e6
        super().__init__(dead=dead, seed=seed)
        self.uarts, self.crystal = dict(lines or {}), crystal
        self.cells = EccCells(self, 0x08000000, sectors((16, 128)), banks=2)

    def build(self) -> None:
        self.cells.map(0x08000000)
        power = Power(self, 0x58024800)
        syscfg = Block(self, 0x58000400)
        syscfg.name = "SYSCFG"
        self.rcc = rcc = Rcc(self, self.crystal, power, lambda: bool(syscfg.values.get(0x2C, 0) & 1))
        syscfg.clocked = rcc.enabled(Rcc.APB4ENR, 1)
        power.changed = rcc.check
        self.control = rcc.control = FlashControl(self, self.cells, rcc.check)
        for block in (power, syscfg, rcc, self.control):
            self.add(block)
        ports = {}
        for number, letter in enumerate("ABCDEFGHIJK"):
            port = Gpio(self, 0x58020000 + 0x400 * number)
            port.name, port.clocked = f"GPIO{letter}", rcc.enabled(Rcc.AHB4ENR, number)
            port.values = {0: {"A": 0xABFFFFFF, "B": 0xFFFFFEBF}.get(letter, 0xFFFFFFFF)}
            ports[letter] = port
            self.add(port)
        for usart in USARTS:
            uart = UsartFifo(self, usart, line_of(self.uarts, usart.name), rcc.kernel(usart), Pins(ports))
            uart.clocked = rcc.enabled(*usart.enable)
            self.add(uart)
        self.add(Watchdog(self, 0x58004800))
        self.plain(("DBGMCU", 0x5C001000), ("EXTI", 0x58000000), ("RTC", 0x58004000), ("MPU of AXI", 0x51000000))
        for ram in D2_SRAMS:
            self.uc.mem_protect(ram.address, ram.size, unicorn.UC_PROT_NONE)
        self.open: set[str] = set()
        rcc.opened = self.srams_may_open

    def sram_on(self, address: int) -> Area | None:
        """The D2 SRAM that is there, if its clock is on."""
        for bit, ram in enumerate(D2_SRAMS):
            if ram.address <= address < ram.address + ram.size and self.rcc.values.get(Rcc.AHB2ENR, 0) >> 29 + bit & 1:
                return ram
        return None

    def srams_may_open(self) -> None:
        self.after(1, self.open_srams)

    def open_srams(self) -> None:
        for ram in D2_SRAMS:
            if self.sram_on(ram.address) and ram.name not in self.open:
                self.uc.mem_protect(ram.address, ram.size, unicorn.UC_PROT_ALL)
                self.open.add(ram.name)

    def flash_store(self, address: int, size: int, value: int) -> None:
        if self.sram_on(address):
            self.uc.mem_write(address, value.to_bytes(size, "little"))
            return
        self.check_sram(address)
        super().flash_store(address, size, value)

    def check_sram(self, address: int) -> None:
        for bit, ram in enumerate(D2_SRAMS):
            if ram.address <= address < ram.address + ram.size:
                raise BoardError(f"{ram.name} is used at {address:#010x} (pc {self.pc:#010x}).",
                                 f"Its clock is off: set bit {29 + bit} of RCC_AHB2ENR.")  # fmt: skip

    def flash_load(self, address: int, size: int) -> bool:
        if self.sram_on(address):
            return True
        self.check_sram(address)
        if not self.cells.broken(address - self.cells.address):
            return True
        self.control.broken(address - self.cells.address)
        if self.system.ignores_bus_faults():
            return True
        self.system.bus_fault(address)
        return False
