# SPDX-License-Identifier: Apache-2.0
"""What STM32 parts share: GPIO, both generations of the USART, the RCC of F4 and F7, the independent watchdog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from .machine import FOREVER, Block, Event, Machine
from .uart import Line, Serial

KEYS = (0x45670123, 0xCDEF89AB)
"""Of FLASH_KEYR: RM0090 3.6.1, RM0385 3.3.5, RM0433 4.5.1."""
HSI_HZ = 16e6
STARTUP_US = {"HSI": 2, "HSE": 2000, "PLL": 100, "LSI": 40, "CSI": 2, "HSI48": 4}
"""Typical start-up times of the oscillators (DS8626, "External clock source characteristics" and the next)."""


class Gpio(Block):
    """RM0090 8.4, RM0385 6.4, RM0433 11.4: the same block in all of them."""

    MODER, IDR, ODR, BSRR, AFRL, AFRH = 0x00, 0x10, 0x14, 0x18, 0x20, 0x24

    def store(self, offset: int, value: int) -> None:
        if offset == self.BSRR:
            odr = self.values.get(self.ODR, 0)
            self.values[self.ODR] = (odr & ~(value >> 16) | value & 0xFFFF) & 0xFFFF
        elif offset == self.IDR:
            self.refuse("IDR is written")
        else:
            self.values[offset] = value

    def fetch(self, offset: int) -> int:
        if offset == self.BSRR:
            return 0
        return self.values.get(self.ODR if offset == self.IDR else offset, 0)

    def store_part(self, offset: int, size: int, value: int) -> None:
        if offset & ~3 == self.BSRR:
            self.store(self.BSRR, value << (offset & 3) * 8)
        else:
            super().store_part(offset, size, value)

    def alternate(self, pin: int) -> int | None:
        """The alternate function that a pin is set to; None: it is an input, an output or analog."""
        if self.values.get(self.MODER, 0) >> 2 * pin & 3 != 2:
            return None
        return self.values.get(self.AFRL + pin // 8 * 4, 0) >> pin % 8 * 4 & 15


class Pins:
    """GPIO ports by letter, and which pins a UART may use: "PA9:7" is pin 9 of port A as alternate function 7."""

    def __init__(self, ports: Mapping[str, Gpio]) -> None:
        self.ports = ports

    def reach(self, choices: str) -> bool:
        """Whether one of the pins is set to the UART."""
        for choice in choices.split():
            name, function = choice.split(":")
            if self.ports[name[1]].alternate(int(name[2:])) == int(function):
                return True
        return False


@dataclass(frozen=True)
class Usart:
    """Where a USART is: its interrupt, its clock enable (register and bit of the RCC), pins as in Pins.reach."""

    name: str
    base: int
    irq: int
    enable: tuple[int, int]
    tx: str
    rx: str


class UsartBlock(Block):
    """What both generations share."""

    TE, RE, RXNEIE, TCIE, TXEIE = 3, 2, 5, 6, 7
    FLAGS_TC, FLAGS_TXE = 1 << 6, 1 << 7

    cr1 = 0x0C
    brr = 0x08
    enable_bit = 13

    def __init__(self, machine: Machine, usart: Usart, line: Line, hz: Callable[[], float], pins: Pins) -> None:
        super().__init__(machine, usart.base)
        self.name, self.usart, self.hz, self.pins = usart.name, usart, hz, pins
        self.serial = Serial(machine, usart.name, line, self.baud, self.receives, self.changed)

    def control(self, bit: int) -> bool:
        return bool(self.values.get(self.cr1, 0) >> bit & 1)

    def baud(self) -> float:
        raise NotImplementedError

    def receives(self) -> bool:
        on = self.control(self.enable_bit) and self.control(self.RE)
        return on and self.clocked() and self.pins.reach(self.usart.rx)

    def flags(self) -> int:
        """PE, FE, NE, ORE, IDLE, RXNE, TC, TXE: bits 0 to 7 of SR and ISR alike."""
        serial = self.serial
        received, idle = len(serial.received) > 0, not serial.sending and not serial.to_send
        empty = len(serial.to_send) < self.room()
        return serial.framing << 1 | serial.overrun << 3 | received << 5 | idle << 6 | empty << 7

    def room(self) -> int:
        return 1

    def changed(self) -> None:
        flags = self.flags()
        wanted = self.control(self.RXNEIE) and bool(flags & (1 << 5 | 1 << 3))
        wanted |= self.control(self.TXEIE) and bool(flags & self.FLAGS_TXE)
        wanted |= self.control(self.TCIE) and bool(flags & self.FLAGS_TC)
        self.machine.line(self.usart.irq, wanted and self.control(self.enable_bit))

    def send(self, value: int) -> None:
        if not self.control(self.enable_bit) or not self.control(self.TE):
            self.refuse("a character is sent while UE or TE is clear")
        elif not self.pins.reach(self.usart.tx):
            self.refuse("a character is sent while no pin is its TX")
        else:
            self.serial.send(value & 0xFF, self.room())

    def configured(self) -> None:
        """CR1 has been written."""
        if self.control(self.enable_bit):
            if self.values.get(self.cr1, 0) & (1 << 12 | 1 << 10 | 1 << 28 & self.word_bits()):
                self.refuse("not 8N1")
            if not self.values.get(self.brr, 0):
                self.refuse("UE is set while BRR is 0")
            if self.control(self.RE) and not self.pins.reach(self.usart.rx):
                self.refuse("RE is set while no pin is its RX")
        self.serial.poll()
        self.changed()

    def word_bits(self) -> int:
        return 0


class UsartOld(UsartBlock):
    """STM32F4: RM0090 30.6, RM0383 19.6."""

    SR, DR, BRR, CR1, CR2, CR3 = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14

    def __init__(self, machine: Machine, usart: Usart, line: Line, hz: Callable[[], float], pins: Pins) -> None:
        super().__init__(machine, usart, line, hz, pins)
        self.seen = 0
        """Flags at the last read of SR: a read of DR then clears them (30.6.1)."""

    def baud(self) -> float:
        """30.3.4."""
        brr = self.values.get(self.BRR, 0)
        divisor = (brr >> 4) * 8 + (brr & 7) if self.control(15) else brr
        return self.hz() / max(1, divisor)

    def fetch(self, offset: int) -> int:
        if offset == self.SR:
            self.serial.wait()
            self.seen = self.flags()
            return self.seen
        if offset == self.DR:
            if self.seen & 1 << 3:
                self.serial.overrun = False
            if self.seen & 1 << 1:
                self.serial.framing = False
            self.seen = 0
            return self.serial.take()
        return self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        if offset == self.DR:
            self.send(value)
        elif offset == self.SR:
            if not value & 1 << 5:  # RXNE is cleared by 0; so are TC, LBD and CTS, which nothing here waits for
                self.serial.received.clear()
                self.changed()
        else:
            self.values[offset] = value
            if offset == self.CR1:
                self.configured()

    def store_part(self, offset: int, size: int, value: int) -> None:
        if offset == self.DR:
            self.send(value)
        else:
            super().store_part(offset, size, value)


class UsartNew(UsartBlock):
    """STM32F7 and H7: RM0385 31.8, RM0433 48.8. The H7 has FIFOs of 16 and a prescaler."""

    CR1, CR2, CR3, BRR, RQR, ISR, ICR, RDR, TDR, PRESC = 0x00, 0x04, 0x08, 0x0C, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C
    PRESCALERS = (1, 2, 4, 6, 8, 10, 12, 16, 32, 64, 128, 256)
    cr1 = 0x00
    brr = 0x0C
    enable_bit = 0
    fifo = 1
    """Depth that FIFOEN gives."""

    def word_bits(self) -> int:
        return 1 << 28

    def baud(self) -> float:
        """RM0433 48.5.7."""
        brr, hz = (
            self.values.get(self.BRR, 0),
            self.hz() / self.PRESCALERS[min(self.values.get(self.PRESC, 0) & 15, 11)],
        )
        if self.control(15):
            return 2 * hz / max(1, brr & 0xFFF0 | (brr & 7) << 1)
        return hz / max(1, brr)

    def room(self) -> int:
        return self.fifo if self.control(29) else 1

    def fetch(self, offset: int) -> int:
        if offset == self.ISR:
            self.serial.wait()
            on = self.control(self.enable_bit)
            return self.flags() | (on and self.control(self.TE)) << 21 | (on and self.control(self.RE)) << 22
        if offset == self.RDR:
            return self.serial.take()
        return 0 if offset in (self.TDR, self.ICR, self.RQR) else self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        serial = self.serial
        if offset == self.TDR:
            self.send(value)
        elif offset == self.ICR:
            serial.overrun &= not value & 1 << 3
            serial.framing &= not value & 1 << 1
            self.changed()
        elif offset == self.RQR:
            if value & 1 << 3:
                serial.received.clear()
                self.changed()
        elif offset in (self.BRR, self.PRESC) and self.control(self.enable_bit):
            self.refuse("BRR or PRESC is written while UE is set")
        elif offset in (self.ISR, self.RDR):
            self.refuse("a register that is read-only is written")
        else:
            if offset == self.CR1 and self.control(0) and value & 1 and (value ^ self.values.get(offset, 0)) & 1 << 29:
                self.refuse("FIFOEN is changed while UE is set")
                value ^= 1 << 29
            self.values[offset] = value
            if offset == self.CR1:
                serial.depth = self.room()
                self.configured()

    def store_part(self, offset: int, size: int, value: int) -> None:
        if offset == self.TDR:
            self.send(value)
        else:
            super().store_part(offset, size, value)


class UsartFifo(UsartNew):
    """STM32H7."""

    fifo = 16


class Oscillators:
    """Which oscillators are on, and since when they are ready."""

    def __init__(self, machine: Machine, settled: Callable[[], None]) -> None:
        self.machine, self.settled = machine, settled
        self.ready_at: dict[str, int] = {}

    def turn(self, name: str, on: bool) -> None:
        if on and name not in self.ready_at:
            if name in self.machine.dead:
                self.ready_at[name] = FOREVER
                return
            cycles = self.machine.cycles(STARTUP_US[name.rstrip("123") if name.startswith("PLL") else name])
            self.ready_at[name] = self.machine.now + cycles
            self.machine.after(cycles, self.settled)
        elif not on:
            self.ready_at.pop(name, None)

    def started(self, name: str) -> None:
        """It runs when the core comes out of reset."""
        self.ready_at[name] = 0

    def on(self, name: str) -> bool:
        return name in self.ready_at

    def ready(self, name: str) -> bool:
        return self.ready_at.get(name, FOREVER) <= self.machine.now


@dataclass(frozen=True)
class Limits:
    """What a part's clocks may reach, in MHz. `latency`: the highest HCLK with so many wait states, at 2.7 to 3.6 V."""

    apb1: float
    apb2: float
    latency: tuple[float, ...]


class Rcc(Block):
    """STM32F4 and F7: RM0090 7.3, RM0383 6.3, RM0385 5.3."""

    name = "RCC"
    CR, PLLCFGR, CFGR, AHB1ENR, APB1ENR, APB2ENR, CSR = 0x00, 0x04, 0x08, 0x30, 0x40, 0x44, 0x74
    reset: ClassVar[dict[int, int]] = {0x00: 0x83, 0x04: 0x24003010, 0x30: 0x00100000, 0x74: 0x0E000000}
    SOURCES = ("HSI", "HSE", "PLL")
    BITS: ClassVar[dict[str, int]] = {"HSI": 0, "HSE": 16, "PLL": 24}
    AHB = (1,) * 8 + (2, 4, 8, 16, 64, 128, 256, 512)
    APB = (1,) * 4 + (2, 4, 8, 16)

    def __init__(
        self, machine: Machine, hse_hz: float, limits: Callable[[], Limits], core_mhz: Callable[[], float]
    ) -> None:
        super().__init__(machine, 0x40023800)
        self.hse_hz, self.limits, self.core_mhz = hse_hz, limits, core_mhz
        self.latency: Callable[[], int] = lambda: 0
        self.source = self.wanted = "HSI"
        self.oscillators = Oscillators(machine, self.settle)
        self.oscillators.started("HSI")
        machine.set_hz(HSI_HZ)

    def enabled(self, register: int, bit: int) -> Callable[[], bool]:
        return lambda: bool(self.values.get(register, 0) >> bit & 1)

    def hz(self, source: str) -> float:
        if source != "PLL":
            return self.hse_hz if source == "HSE" else HSI_HZ
        value = self.values[self.PLLCFGR]
        return self.vco() / (2 * ((value >> 16 & 3) + 1))

    def vco_in(self) -> float:
        value = self.values[self.PLLCFGR]
        return self.hz("HSE" if value >> 22 & 1 else "HSI") / max(1, value & 63)

    def vco(self) -> float:
        return self.vco_in() * (self.values[self.PLLCFGR] >> 6 & 511)

    @property
    def sysclk(self) -> float:
        return self.hz(self.source)

    @property
    def hclk(self) -> float:
        return self.sysclk / self.AHB[self.values.get(self.CFGR, 0) >> 4 & 15]

    @property
    def pclk1(self) -> float:
        return self.hclk / self.APB[self.values.get(self.CFGR, 0) >> 10 & 7]

    @property
    def pclk2(self) -> float:
        return self.hclk / self.APB[self.values.get(self.CFGR, 0) >> 13 & 7]

    def settle(self) -> None:
        """The switch follows when its source is ready; then the clocks are what they are."""
        if self.wanted != self.source and self.oscillators.ready(self.wanted):
            self.source = self.wanted
        self.machine.set_hz(self.hclk)
        self.check()

    def check(self) -> None:
        """Called whenever something changed that the limits speak of."""
        limits = self.limits()
        hclk = self.hclk / 1e6
        for name, mhz, most in (
            ("HCLK", hclk, self.core_mhz()),
            ("PCLK1", self.pclk1 / 1e6, limits.apb1),
            ("PCLK2", self.pclk2 / 1e6, limits.apb2),
        ):
            if mhz > most + 1e-6:
                self.refuse(f"{name} is {mhz:.1f} MHz, more than {most:g}")
        states = self.latency()
        most = limits.latency[min(states, len(limits.latency) - 1)]
        if hclk > most + 1e-6:
            self.refuse(f"{states} wait states of the flash at {hclk:.1f} MHz: they allow {most:g}")

    def check_pll(self) -> None:
        """RM0090 7.3.2."""
        value = self.values[self.PLLCFGR]
        source = "HSE" if value >> 22 & 1 else "HSI"
        if not self.oscillators.ready(source):
            self.refuse(f"the PLL is turned on before {source} is ready")
        if not 1e6 <= self.vco_in() <= 2e6 or value & 63 < 2:
            self.refuse(f"the PLL's input is {self.vco_in() / 1e6:.3f} MHz, not 1 to 2")
        if not 50 <= value >> 6 & 511 <= 432 or not 100e6 <= self.vco() <= 432e6:
            self.refuse(f"the PLL's VCO is {self.vco() / 1e6:.1f} MHz, not 100 to 432")

    def fetch(self, offset: int) -> int:
        value = self.values.get(offset, 0)
        if offset == self.CR:
            for name, bit in self.BITS.items():
                value = value & ~(2 << bit) | self.oscillators.ready(name) << bit + 1
        elif offset == self.CFGR:
            value = value & ~12 | self.SOURCES.index(self.source) << 2
        elif offset == self.CSR:
            value = value & ~2 | self.oscillators.ready("LSI") << 1
        return value

    def store(self, offset: int, value: int) -> None:
        if offset == self.CR:
            for name, bit in self.BITS.items():
                on = bool(value >> bit & 1)
                if not on and name in (self.source, self.wanted):
                    self.refuse(f"{name} is turned off while it is the system clock")
                    value |= 1 << bit
                elif on and name == "PLL" and not self.oscillators.on(name):
                    self.check_pll()
                self.oscillators.turn(name, on or name in (self.source, self.wanted))
        elif offset == self.PLLCFGR and self.oscillators.on("PLL"):
            self.refuse("PLLCFGR is written while the PLL is on")
            return
        elif offset == self.CFGR:
            if value & 3 == 3:
                self.refuse("SW is 3")
                return
            self.wanted = self.SOURCES[value & 3]
            if not self.oscillators.on(self.wanted):
                self.refuse(f"the system clock is to be {self.wanted}, which is off")
        elif offset == self.CSR:
            self.oscillators.turn("LSI", bool(value & 1))
            if value & 1 << 24:
                value &= 0x00FFFFFF
        self.values[offset] = value
        if offset in (self.CR, self.CFGR):
            self.settle()


class Watchdog(Block):
    """The independent watchdog: RM0090 21.4, RM0385 26.4, RM0433 46.4; 32 kHz."""

    name = "IWDG"
    KR, PR, RLR, SR = 0x00, 0x04, 0x08, 0x0C
    reset: ClassVar[dict[int, int]] = {0x08: 0xFFF}

    def __init__(self, machine: Machine, base: int) -> None:
        super().__init__(machine, base)
        self.open = False
        self.event: Event | None = None

    def store(self, offset: int, value: int) -> None:
        if offset == self.KR:
            self.open = value == 0x5555
            if value == 0xCCCC or (value == 0xAAAA and self.event is not None):
                self.restart()
        elif self.open and offset in (self.PR, self.RLR):
            self.values[offset] = value
        else:
            self.refuse("PR or RLR is written without the key")

    def fetch(self, offset: int) -> int:
        return 0 if offset in (self.KR, self.SR) else self.values.get(offset, 0)

    def restart(self) -> None:
        if self.event is not None:
            self.event.off = True
        micros = (4 << min(6, self.values.get(self.PR, 0))) * (self.values[self.RLR] + 1) / 32e3 * 1e6
        self.event = self.machine.after(self.machine.cycles(micros), self.bite)

    def bite(self) -> None:
        self.refuse("the watchdog has reset the part")
        self.machine.reset_part()


def line_of(lines: Mapping[str, Line], name: str) -> Line:
    """A UART that no one speaks to has a line of its own."""
    return lines.get(name) or Line()


class FlashBlock(Block):
    """A flash interface."""

    def program(self, address: int, size: int, value: int) -> None:
        """A store into the flash."""
        raise NotImplementedError


class Stm32(Machine):
    """An STM32 with code in flash at 0x08000000."""

    control: FlashBlock

    def entry(self) -> int:
        return 0x08000000

    def flash_store(self, address: int, size: int, value: int) -> None:
        if not 0 <= address - self.cells.address < self.cells.size:
            super().flash_store(address, size, value)
        self.control.program(address, size, value)
