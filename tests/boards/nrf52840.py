# SPDX-License-Identifier: Apache-2.0
"""nRF52840: product specification 1.7 (PS)."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import unicorn

from .flash import Cells, Times, sectors
from .machine import FOREVER, M4, Area, Block, Event, Machine
from .uart import Line, Serial

PAGE, WORD, ALL = Times(85e3, 85e3), Times(41, 41), Times(169e3, 169e3)
"""PS 4.3.9, "NVMC electrical specification": it has largest values only."""


class Peripheral(Block):
    """Tasks, events and interrupts: PS 6.1. The interrupt is up while an event is that INTEN names."""

    INTEN, INTENSET, INTENCLR = 0x300, 0x304, 0x308

    def __init__(self, machine: Machine, name: str, base: int, size: int = 0x1000) -> None:
        super().__init__(machine, base, size)
        self.name, self.irq = name, base >> 12 & 0xFF
        self.tasks: dict[int, Callable[[], None]] = {}

    def event(self, offset: int) -> None:
        self.values[offset] = 1
        self.lines()

    def lines(self) -> None:
        enabled = self.values.get(self.INTEN, 0)
        wanted = any(enabled >> n & 1 and self.values.get(0x100 + 4 * n, 0) for n in range(32))
        self.machine.line(self.irq, wanted)

    def fetch(self, offset: int) -> int:
        if offset in (self.INTENSET, self.INTENCLR):
            return self.values.get(self.INTEN, 0)
        return 0 if offset < 0x100 else self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        enabled = self.values.get(self.INTEN, 0)
        if offset < 0x100:
            if value & 1:
                self.tasks.get(offset, lambda: self.refuse(f"there is no task at {offset:#05x}"))()
        elif offset == self.INTENSET:
            self.values[self.INTEN] = enabled | value
        elif offset == self.INTENCLR:
            self.values[self.INTEN] = enabled & ~value
        else:
            self.values[offset] = value
        self.lines()


class Clock(Peripheral):
    """CLOCK and POWER: PS 5.3.7, 5.4.4."""

    HFCLKSTARTED, LFCLKSTARTED = 0x100, 0x104
    HFCLKSTAT, LFCLKSTAT, RESETREAS = 0x40C, 0x418, 0x400

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "CLOCK", 0x40000000)
        self.ready_at = {"HFXO": FOREVER, "LF": FOREVER}
        self.tasks = {
            0x00: lambda: self.start("HFXO", self.HFCLKSTARTED, 360),
            0x04: lambda: self.ready_at.update({"HFXO": FOREVER}),
            0x08: lambda: self.start("LF", self.LFCLKSTARTED, 600),
            0x0C: lambda: self.ready_at.update({"LF": FOREVER}),
        }

    def start(self, name: str, event: int, micros: float) -> None:
        if name not in self.machine.dead:
            self.ready_at[name] = self.machine.now + self.machine.cycles(micros)
            self.machine.after(self.machine.cycles(micros), lambda: self.event(event))

    def ready(self, name: str) -> bool:
        return self.ready_at[name] <= self.machine.now

    def fetch(self, offset: int) -> int:
        if offset == self.HFCLKSTAT:
            return 1 << 16 | self.ready("HFXO")
        if offset == self.LFCLKSTAT:
            return self.ready("LF") << 16 | self.values.get(0x518, 0) & 3
        return super().fetch(offset)

    def store(self, offset: int, value: int) -> None:
        if offset == self.RESETREAS:
            value = self.values.get(offset, 0) & ~value
        super().store(offset, value)


class Nvmc(Block):
    """The controller of the flash: PS 4.3.

    A word may be written twice between erases (nWRITE); a page is erased by its address.
    """

    name = "NVMC"
    READY, READYNEXT, CONFIG, ERASEPAGE, ERASEALL, ERASEUICR, ICACHECNF = (
        0x400,
        0x408,
        0x504,
        0x508,
        0x50C,
        0x514,
        0x540,
    )
    WEN, EEN = 1, 2

    def __init__(self, machine: Machine, cells: Cells, writes: Counter[int]) -> None:
        super().__init__(machine, 0x4001E000, 0x1000)
        self.cells, self.writes = cells, writes

    def fetch(self, offset: int) -> int:
        if offset in (self.READY, self.READYNEXT):
            return int(not self.cells.poll())
        return self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        if offset == self.ERASEPAGE:
            self.erase(value)
        elif offset == self.ERASEALL and value & 1:
            if self.erases():
                for number in range(len(self.cells.layout)):
                    self.writes.clear()
                    self.cells.finish()
                    self.cells.erase(number, Times(ALL.typical / 256, ALL.maximum / 256))
                self.begun()
        elif offset == self.CONFIG:
            if value > 2:
                self.refuse(f"CONFIG is {value}")
            elif self.cells.busy():
                self.refuse("CONFIG is written while not READY")
            self.values[offset] = value & 3
        elif offset == self.ICACHECNF:
            self.values[offset] = value
        else:
            self.refuse(f"{offset:#05x} is written: nothing that is modelled")

    def erases(self) -> bool:
        if self.values.get(self.CONFIG, 0) != self.EEN:
            self.refuse("an erase while CONFIG is not EEN")
            return False
        return True

    def erase(self, address: int) -> None:
        if not self.erases():
            return
        if address % 4096 or address >= self.cells.size:
            self.refuse(f"ERASEPAGE of {address:#x}: no page begins there")
            return
        for word in range(address, address + 4096, 4):
            self.writes.pop(word, None)
        self.cells.finish()
        self.cells.erase(address // 4096, PAGE)
        self.begun()

    def begun(self) -> None:
        """PS 4.3.1, 4.3.2: the core halts if it runs from the flash."""
        if self.cells.holds(self.machine.pc):
            self.cells.finish()
        else:
            self.machine.clock.shut_from, self.machine.clock.shut_size = self.cells.address, self.cells.size

    def program(self, address: int, size: int, value: int) -> None:
        if size != 4 or address % 4:
            self.refuse(f"a store of {size} bytes at {address:#x}: only aligned words are written")
            self.machine.system.bus_fault(None)
        elif self.values.get(self.CONFIG, 0) != self.WEN:
            self.refuse("a store while CONFIG is not WEN")
        else:
            data = value.to_bytes(4, "little")
            if self.cells.sets_bits(address, data):
                self.refuse("bits go from 0 to 1 without an erase")
            self.writes[address] += 1
            if self.writes[address] > 2:
                self.refuse("a word is written more than twice without an erase (nWRITE)")
            self.cells.finish()
            self.cells.program(address, data, WORD)
            self.begun()


class Uart(Peripheral):
    """UART and UARTE at one address: PS 6.33 and 6.34. ENABLE says which one it is."""

    STARTRX, STOPRX, STARTTX, STOPTX, FLUSHRX = 0x00, 0x04, 0x08, 0x0C, 0x2C
    CTS, RXDRDY, ENDRX, TXDRDY, ENDTX, ERROR, RXTO = 0x100, 0x108, 0x110, 0x11C, 0x120, 0x124, 0x144
    RXSTARTED, TXSTARTED, TXSTOPPED = 0x14C, 0x150, 0x158
    SHORTS, ERRORSRC, ENABLE, PSEL_TXD, PSEL_RXD, RXD, TXD, BAUDRATE, CONFIG = (
        0x200, 0x480, 0x500, 0x50C, 0x514, 0x518, 0x51C, 0x524, 0x56C,
    )  # fmt: skip
    RX_PTR, RX_MAXCNT, RX_AMOUNT, TX_PTR, TX_MAXCNT, TX_AMOUNT = 0x534, 0x538, 0x53C, 0x544, 0x548, 0x54C
    OFF, UART, UARTE = 0, 4, 8
    FIFO = 6
    """Characters that wait for RXD: PS 6.33.5."""

    def __init__(self, machine: Machine, name: str, base: int, line: Line) -> None:
        super().__init__(machine, name, base)
        self.values = {self.BAUDRATE: 0x04000000} | dict.fromkeys(
            (0x508, self.PSEL_TXD, 0x510, self.PSEL_RXD), 0xFFFFFFFF
        )
        self.receiving = self.transmitting = False
        self.tasks = {
            self.STARTRX: self.start_rx,
            self.STOPRX: self.stop_rx,
            self.STARTTX: self.start_tx,
            self.STOPTX: self.stop_tx,
        }
        self.serial = Serial(machine, name, line, self.baud, lambda: self.receiving, self.changed)
        self.tasks[self.FLUSHRX] = self.serial.received.clear
        self.serial.depth = self.FIFO
        self.shown = 0
        """Characters that RXDRDY has told of and that wait."""
        self.filled: tuple[int, int, int] | None = None
        """UARTE: where the next received byte goes, how many may still come, how many came."""
        self.sent_from = 0
        self.in_shift = False

    def mode(self) -> int:
        return self.values.get(self.ENABLE, 0)

    def baud(self) -> float:
        """PS 6.33.10.21: the register is baud x 2^32 / 16 MHz."""
        return self.values[self.BAUDRATE] * 16e6 / (1 << 32)

    def start_rx(self) -> None:
        if self.mode() == self.OFF or self.values[self.PSEL_RXD] >> 31:
            self.refuse("STARTRX while it is off or RXD has no pin")
            return
        self.receiving = True
        if self.mode() == self.UARTE:
            self.filled = self.values.get(self.RX_PTR, 0), self.values.get(self.RX_MAXCNT, 0), 0
            self.check_ram(self.filled[0], self.filled[1])
            self.event(self.RXSTARTED)
        self.serial.poll()
        self.changed()

    def stop_rx(self) -> None:
        self.receiving = False
        if self.mode() == self.UARTE:
            self.end_rx()
        self.machine.after(self.serial.character(), lambda: self.event(self.RXTO))

    def end_rx(self) -> None:
        if self.filled is not None:
            self.values[self.RX_AMOUNT] = self.filled[2]
            self.filled = None
            self.event(self.ENDRX)
            shorts = self.values.get(self.SHORTS, 0)
            if self.receiving and shorts & 1 << 5:
                self.start_rx()
            elif self.receiving and shorts & 1 << 6:
                self.stop_rx()

    def check_ram(self, address: int, size: int) -> bool:
        """PS 6.2.1: EasyDMA reaches RAM only."""
        ram = self.machine.rams[0]
        if ram.address <= address and address + size <= ram.address + ram.size:
            return True
        self.refuse(f"EasyDMA at {address:#x}: that is not RAM")
        return False

    def start_tx(self) -> None:
        if self.mode() == self.OFF or self.values[self.PSEL_TXD] >> 31:
            self.refuse("STARTTX while it is off or TXD has no pin")
            return
        self.transmitting = True
        if self.mode() == self.UARTE:
            at, count = self.values.get(self.TX_PTR, 0), self.values.get(self.TX_MAXCNT, 0)
            if self.serial.sending or self.serial.to_send:
                self.refuse("STARTTX while it transmits")
            elif self.check_ram(at, count):
                self.event(self.TXSTARTED)
                self.sent_from = count
                for byte in self.machine.peek(at, count):
                    self.in_shift = True
                    self.serial.send(byte, count)
                if not count:
                    self.event(self.ENDTX)

    def stop_tx(self) -> None:
        self.transmitting = False
        if self.mode() == self.UARTE:
            self.event(self.TXSTOPPED)

    def changed(self) -> None:
        serial = self.serial
        if serial.overrun or serial.framing:
            self.values[self.ERRORSRC] = self.values.get(self.ERRORSRC, 0) | serial.overrun | serial.framing << 2
            serial.overrun = serial.framing = False
            self.event(self.ERROR)
        if self.mode() == self.UARTE:
            self.fill()
        elif len(serial.received) and not self.shown:
            self.shown = 1
            self.event(self.RXDRDY)
        if self.in_shift and not serial.sending:
            self.in_shift = False
            self.event(self.TXDRDY)
            if self.mode() == self.UARTE:
                self.values[self.TX_AMOUNT] = self.sent_from
                self.event(self.ENDTX)

    def fill(self) -> None:
        """UARTE: received characters go to RAM."""
        while self.filled is not None and self.serial.received:
            at, room, came = self.filled
            if room:
                self.machine.uc.mem_write(at, bytes((self.serial.received.popleft(),)))
                self.filled = at + 1, room - 1, came + 1
                self.event(self.RXDRDY)
            if room <= 1:
                self.end_rx()

    def fetch(self, offset: int) -> int:
        if offset == self.RXD:
            byte = self.serial.take()
            self.shown = 0
            self.changed()  # the next one moves to RXD and is told of
            return byte
        if offset in (self.TXDRDY, self.ENDTX):
            self.serial.wait()
        return super().fetch(offset)

    def store(self, offset: int, value: int) -> None:
        if offset == self.TXD:
            self.send(value)
        elif offset == self.ERRORSRC:
            self.values[offset] = self.values.get(offset, 0) & ~value
        elif offset in (self.PSEL_TXD, self.PSEL_RXD) and self.mode() != self.OFF:
            self.refuse("PSEL is written while it is on")
        elif offset == self.CONFIG and value & ~0x11:
            self.refuse("not 8N1")
        else:
            super().store(offset, value)
            if offset == self.ENABLE:
                if value not in (self.OFF, self.UART, self.UARTE):
                    self.refuse(f"ENABLE is {value}")
                self.serial.depth = self.FIFO
                if value == self.OFF:
                    self.receiving = self.transmitting = False

    def send(self, value: int) -> None:
        if self.mode() != self.UART or not self.transmitting:
            self.refuse("TXD is written before STARTTX, or while it is no UART")
        elif self.in_shift:
            self.refuse("TXD is written before TXDRDY of the last character")
        else:
            self.in_shift = True
            self.serial.send(value & 0xFF)


class Timer(Peripheral):
    """TIMER, 16 MHz >> PRESCALER, and RTC, 32768 Hz / (PRESCALER + 1): PS 6.30, 6.22. No compare events."""

    COUNTER, BITMODE, TIMER_PRESCALER, RTC_PRESCALER = 0x504, 0x508, 0x510, 0x508

    def __init__(self, machine: Machine, name: str, base: int, clock: Clock) -> None:
        super().__init__(machine, name, base)
        self.is_rtc, self.oscillator = name.startswith("RTC"), clock
        self.counted, self.since = 0.0, FOREVER
        self.tasks = {0x00: self.start, 0x04: self.stop, (8 if self.is_rtc else 0x0C): self.clear}
        if not self.is_rtc:
            self.tasks |= {0x40 + 4 * n: functools.partial(self.capture, 0x540 + 4 * n) for n in range(6)}

    def capture(self, offset: int) -> None:
        self.values[offset] = self.count()

    def start(self) -> None:
        if self.is_rtc and not self.oscillator.ready("LF"):
            self.refuse("is started without LFCLK")
        self.since = min(self.since, self.machine.now)

    def hz(self) -> float:
        if self.is_rtc:
            return 32768 / ((self.values.get(self.RTC_PRESCALER, 0) & 0xFFF) + 1)
        return 16e6 / (1 << (self.values.get(self.TIMER_PRESCALER, 4) & 15))

    def count(self) -> int:
        bits = 24 if self.is_rtc else (16, 8, 24, 32)[self.values.get(self.BITMODE, 0) & 3]
        ran = max(0, self.machine.now - self.since) / self.machine.hz if self.since != FOREVER else 0.0
        return int(self.counted + ran * self.hz()) & (1 << bits) - 1

    def stop(self) -> None:
        self.counted, self.since = self.count(), FOREVER

    def clear(self) -> None:
        self.counted = 0.0
        self.since = self.machine.now if self.since != FOREVER else FOREVER

    def fetch(self, offset: int) -> int:
        return self.count() if self.is_rtc and offset == self.COUNTER else super().fetch(offset)


class Watchdog(Peripheral):
    """WDT: PS 6.37. It counts at 32768 Hz, and does not stop."""

    RUNSTATUS, CRV, RREN, CONFIG, RR = 0x400, 0x504, 0x508, 0x50C, 0x600

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "WDT", 0x40010000)
        self.values = {self.CRV: 0xFFFFFFFF, self.RREN: 1}
        self.timer: Event | None = None
        self.tasks = {0x00: self.restart}

    def restart(self) -> None:
        if self.timer is not None:
            self.timer.off = True
        self.values[self.RUNSTATUS] = 1
        cycles = self.machine.cycles((self.values[self.CRV] + 1) / 32768 * 1e6)
        self.timer = self.machine.after(cycles, self.bite)

    def bite(self) -> None:
        self.refuse("the watchdog has reset the part")
        self.machine.reset_part()

    def store(self, offset: int, value: int) -> None:
        if self.RR <= offset < self.RR + 32:
            if value == 0x6E524635 and self.timer is not None:
                self.restart()
        elif self.timer is not None and offset in (self.CRV, self.RREN, self.CONFIG):
            self.refuse("CRV, RREN or CONFIG is written while it runs")
        else:
            super().store(offset, value)


class Gpio(Block):
    """P0 and P1: PS 6.9. Pins are what OUT says."""

    name = "GPIO"

    def store(self, offset: int, value: int) -> None:
        port, register = offset // 0x300 * 0x300 if offset >= 0x800 else 0, offset if offset < 0x800 else offset - 0x300
        out, direction = port + 0x504, port + 0x514
        match register:
            case 0x508:
                self.values[out] = self.values.get(out, 0) | value
            case 0x50C:
                self.values[out] = self.values.get(out, 0) & ~value
            case 0x518:
                self.values[direction] = self.values.get(direction, 0) | value
            case 0x51C:
                self.values[direction] = self.values.get(direction, 0) & ~value
            case _:
                self.values[offset] = value


class Nrf52840(Machine):
    """nRF52840."""

    core = replace(M4, priority_bits=3)
    rams = (Area("RAM", 0x20000000, 256 << 10),)
    hz = 64e6

    def __init__(self, lines: Mapping[str, Line] | None = None, *, crystal: float = 32e6, dead: Iterable[str] = (),
                 seed: int = 0) -> None:  # fmt: skip
        super().__init__(dead=dead, seed=seed)
        self.uarts, self.crystal = dict(lines or {}), crystal
        self.cells = Cells(self, 0, sectors((256, 4)))
        self.writes: Counter[int] = Counter()
        """How often a word was written since its page was erased."""

    def entry(self) -> int:
        return 0

    def build(self) -> None:
        self.cells.map(0)
        self.nvmc = Nvmc(self, self.cells, self.writes)
        clock = Clock(self)
        for block in (clock, self.nvmc, Watchdog(self), Gpio(self, 0x50000000, 0x1000)):
            self.add(block)
        for name, base in (("UART0", 0x40002000), ("UART1", 0x40028000)):
            self.add(Uart(self, name, base, self.uarts.get(name) or Line()))
        for name, base in (("RTC0", 0x4000B000), ("RTC1", 0x40011000), ("RTC2", 0x40024000), ("TIMER0", 0x40008000),
                           ("TIMER1", 0x40009000), ("TIMER2", 0x4000A000), ("TIMER3", 0x4001A000),
                           ("TIMER4", 0x4001B000)):  # fmt: skip
            self.add(Timer(self, name, base, clock))
        for name, base in (("GPIOTE", 0x40006000), ("PPI", 0x4001F000), ("TEMP", 0x4000C000), ("RNG", 0x4000D000)):
            self.add(Peripheral(self, name, base))
        for information in (0x10000000, 0x10001000):  # FICR, UICR
            self.uc.mem_map(information, 0x1000)
            self.uc.mem_write(information, b"\xff" * 0x1000)
            self.uc.mem_protect(information, 0x1000, unicorn.UC_PROT_READ)

    def flash_store(self, address: int, size: int, value: int) -> None:
        if address >= self.cells.size:
            super().flash_store(address, size, value)
        self.nvmc.program(address, size, value)
