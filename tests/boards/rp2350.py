# SPDX-License-Identifier: Apache-2.0
"""RP2350 with 4 MiB of QSPI flash (Pico 2): RP2350 datasheet, build of 2025; flash: W25Q32JV data sheet.

One core, in the secure state.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import unicorn
import unicorn.arm_const as arm

from .flash import Cells, sectors
from .machine import FOREVER, M33, Area, Block, BoardError, Event, Machine
from .rp2350_bootrom import FLASH_BYTES, XIP, Bootrom
from .uart import Line, Serial

XIP_UNCACHED = 0x14000000
"""4.4.1."""
IMAGE_DEF = struct.pack("<5I", 0xFFFFDED3, 0x10210142, 0x000001FF, 0, 0xAB123579)
"""The smallest one for Arm: 5.9.5.1."""


class Registers(Block):
    """A block on the APB: also at +0x1000 (xor), +0x2000 (set), +0x3000 (clear): 2.1.3. Narrow stores: 2.1.5."""

    def __init__(self, machine: Machine, name: str, base: int) -> None:
        super().__init__(machine, base, 0x4000)
        self.name = name

    def read(self, offset: int, size: int) -> int:
        return super().read(offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if not self.clocked():
            self.refuse("is written while in reset")
            return
        register, kind = offset & 0xFFC, offset >> 12
        value = (value & (1 << size * 8) - 1) * {1: 0x01010101, 2: 0x00010001, 4: 1}[size]
        if kind:
            old = self.raw(register)
            value = (old ^ value, old | value, old & ~value)[kind - 1]
        self.store(register, value)

    def raw(self, register: int) -> int:
        """What set, clear and xor work on."""
        return self.values.get(register, 0)


class Resets(Registers):
    """7.5.3."""

    RESET, RESET_DONE = 0x0, 0x8
    NAMES = (
        *("ADC", "BUSCTRL", "DMA", "HSTX", "I2C0", "I2C1", "IO_BANK0", "IO_QSPI", "JTAG", "PADS_BANK0", "PADS_QSPI"),
        *("PIO0", "PIO1", "PIO2", "PLL_SYS", "PLL_USB", "PWM", "SHA256", "SPI0", "SPI1", "SYSCFG", "SYSINFO", "TBMAN"),
        *("TIMER0", "TIMER1", "TRNG", "UART0", "UART1", "USBCTRL"),
    )

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "RESETS", 0x40020000)
        on = sum(1 << self.NAMES.index(name) for name in ("IO_QSPI", "PADS_QSPI", "SYSCFG", "SYSINFO"))
        self.values = {self.RESET: 0x1FFFFFFF & ~on}

    def released(self, name: str) -> Callable[[], bool]:
        bit = self.NAMES.index(name)
        return lambda: not self.values[self.RESET] >> bit & 1

    def fetch(self, offset: int) -> int:
        return ~self.values[self.RESET] & 0x1FFFFFFF if offset == self.RESET_DONE else super().fetch(offset)


class Xosc(Registers):
    """8.2.8."""

    CTRL, STATUS, STARTUP = 0x00, 0x04, 0x0C

    def __init__(self, machine: Machine, crystal: float) -> None:
        super().__init__(machine, "XOSC", 0x40048000)
        self.values = {self.STARTUP: 0xC4}
        self.crystal, self.stable_at = crystal, FOREVER

    def enabled(self) -> bool:
        return self.values.get(self.CTRL, 0) >> 12 & 0xFFF == 0xFAB

    def stable(self) -> bool:
        return self.enabled() and self.stable_at <= self.machine.now

    def fetch(self, offset: int) -> int:
        if offset == self.STATUS:
            return self.enabled() << 12 | self.stable() << 31
        return super().fetch(offset)

    def store(self, offset: int, value: int) -> None:
        was = self.enabled()
        self.values[offset] = value
        if offset == self.CTRL and value & 0xFFF != 0xAA0:
            self.refuse(f"CTRL.FREQ_RANGE is {value & 0xFFF:#x}: the crystal is in the range 0xaa0")
        if self.enabled() and not was and "XOSC" not in self.machine.dead:
            delay = self.values[self.STARTUP]
            micros = (delay & 0x3FFF) * (4 if delay >> 20 & 1 else 1) * 256 / self.crystal * 1e6
            if micros < 1000:
                self.refuse(f"STARTUP.DELAY is {micros:.0f} us: less than 1 ms (8.2.4)")
            self.stable_at = self.machine.now + self.machine.cycles(micros)


class Pll(Registers):
    """8.6.5."""

    CS, PWR, FBDIV, PRIM = 0x0, 0x4, 0x8, 0xC
    PD, POSTDIVPD, VCOPD = 1 << 0, 1 << 3, 1 << 5

    def __init__(self, machine: Machine, name: str, base: int, xosc: Xosc, changed: Callable[[], None]) -> None:
        super().__init__(machine, name, base)
        self.values = {self.CS: 1, self.PWR: 0x2D, self.PRIM: 0x77000}
        self.xosc, self.changed, self.lock_at = xosc, changed, FOREVER

    def powered(self) -> bool:
        return not self.values[self.PWR] & (self.PD | self.VCOPD)

    def locked(self) -> bool:
        return self.powered() and self.lock_at <= self.machine.now

    def vco(self) -> float:
        return self.xosc.crystal / max(1, self.values[self.CS] & 63) * (self.values.get(self.FBDIV, 0) & 0xFFF)

    def hz(self) -> float:
        """0: nothing comes out."""
        prim = self.values[self.PRIM]
        divider = (prim >> 16 & 7) * (prim >> 12 & 7)
        return self.vco() / divider if self.locked() and divider and not self.values[self.PWR] & self.POSTDIVPD else 0.0

    def fetch(self, offset: int) -> int:
        return self.values[offset] | self.locked() << 31 if offset == self.CS else super().fetch(offset)

    def store(self, offset: int, value: int) -> None:
        was = self.powered()
        self.values[offset] = value & ~(1 << 31)
        if self.powered() and not was:
            if not self.xosc.stable():
                self.refuse("is turned on before the XOSC is stable")
            if not 16 <= self.values.get(self.FBDIV, 0) & 0xFFF <= 320:
                self.refuse("FBDIV_INT is not 16 to 320")
            if not 750e6 <= self.vco() <= 1600e6:  # 8.6.3; the register's description says 400
                self.refuse(f"its VCO is {self.vco() / 1e6:.0f} MHz, not 750 to 1600")
            elif self.name not in self.machine.dead:
                self.lock_at = self.machine.now + self.machine.cycles(100)
                self.machine.after(self.machine.cycles(100), self.changed)
        elif not self.powered():
            self.lock_at = FOREVER
        self.changed()


class Clocks(Registers):
    """8.1.7: clk_ref, clk_sys, clk_peri. The others keep what they are given."""

    REF, SYS, PERI = 0x30, 0x3C, 0x48
    ROSC_HZ = 11e6
    """8.3: nominal, as the bootrom leaves it."""
    MOST = 150e6

    def __init__(self, machine: Machine, xosc: Xosc) -> None:
        super().__init__(machine, "CLOCKS", 0x40010000)
        self.xosc = xosc
        self.plls: dict[str, Pll] = {}
        self.values = {clock + 4: 0x10000 for clock in (self.REF, self.SYS, self.PERI)}
        machine.set_hz(self.ROSC_HZ)

    def source(self, name: str) -> float:
        if name in self.plls:
            return self.plls[name].hz()
        return {"ROSC": self.ROSC_HZ, "XOSC": self.xosc.crystal if self.xosc.stable() else 0.0}.get(name, 0.0)

    def divided(self, clock: int, hz: float) -> float:
        divider = self.values[clock + 4] / 65536
        return hz / divider if divider else 0.0

    def ref(self) -> float:
        source = ("ROSC", "PLL_USB", "XOSC", "LPOSC")[self.values.get(self.REF, 0) & 3]
        return self.divided(self.REF, self.source(source))

    def sys(self) -> float:
        control = self.values.get(self.SYS, 0)
        if not control & 1:
            return self.divided(self.SYS, self.ref())
        return self.divided(
            self.SYS, self.source(("PLL_SYS", "PLL_USB", "ROSC", "XOSC", "", "", "", "")[control >> 5 & 7])
        )

    def peri(self) -> float:
        control = self.values.get(self.PERI, 0)
        if not control & 1 << 11:
            return 0.0
        chosen = control >> 5 & 7
        hz = self.sys() if chosen == 0 else self.source(("", "PLL_SYS", "PLL_USB", "ROSC", "XOSC", "", "", "")[chosen])
        return self.divided(self.PERI, hz)

    def fetch(self, offset: int) -> int:
        if offset in (self.REF + 8, self.SYS + 8):
            return 1 << (self.values.get(offset - 8, 0) & 3)
        return 1 if offset == self.PERI + 8 else super().fetch(offset)

    def store(self, offset: int, value: int) -> None:
        was = self.values.get(offset, 0)
        if offset == self.SYS and was & 1 and value & 1 and (was ^ value) & 0xE0:
            self.refuse("the auxiliary source of clk_sys is changed while it is in use (8.1.3.2)")
        self.values[offset] = value
        self.changed()

    def changed(self) -> None:
        hz = self.sys()
        if not hz:
            self.refuse("clk_sys has a source that does not run")
            hz = self.machine.hz
        elif hz > self.MOST + 1:
            self.refuse(f"clk_sys is {hz / 1e6:.1f} MHz, more than 150")
        self.machine.set_hz(hz)


class Pins:
    """IO_BANK0 (9.11.1) and PADS_BANK0 (9.11.3): which function a pin has, and whether its pad lets it through."""

    ISO, OD, IE = 1 << 8, 1 << 7, 1 << 6

    def __init__(self, machine: Machine) -> None:
        self.io, self.pads = Registers(machine, "IO_BANK0", 0x40028000), Registers(machine, "PADS_BANK0", 0x40038000)
        self.io.values = {8 * n + 4: 0x1F for n in range(48)}
        self.pads.values = {4 + 4 * n: 0x116 for n in range(48)}

    def reach(self, pins: Iterable[int], function: int, *, receives: bool) -> bool:
        for pin in pins:
            pad = self.pads.values[4 + 4 * pin]
            if self.io.values[8 * pin + 4] & 31 == function and not pad & self.ISO:
                if receives and pad & self.IE:
                    return True
                if not receives and not pad & self.OD:
                    return True
        return False


class Uart(Registers):
    """A PL011: 12.1.8. FIFOs of 32."""

    DR, RSR, FR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR = (
        0x00, 0x04, 0x18, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38, 0x3C, 0x40, 0x44,
    )  # fmt: skip
    RX, TX, RT, OE = 1 << 4, 1 << 5, 1 << 6, 1 << 10
    LEVELS = (4, 8, 16, 24, 28, 32, 32, 32)
    PINS: ClassVar[dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]]] = {
        "UART0": ((0, 12, 16, 28), (1, 13, 17, 29), (2, 14, 18), (3, 15, 19)),
        "UART1": ((4, 8, 20, 24), (5, 9, 21, 25), (6, 10, 22, 26), (7, 11, 23, 27)),
    }
    """TX and RX as function 2, TX and RX as function 11: 9.4, table 645."""

    def __init__(
        self, machine: Machine, name: str, base: int, irq: int, line: Line, clocks: Clocks, pins: Pins
    ) -> None:
        super().__init__(machine, name, base)
        self.irq, self.clocks, self.pins = irq, clocks, pins
        self.values = {self.CR: 0x300, self.IFLS: 0x12}
        self.raised = 0
        """UARTRIS."""
        self.divisor = 0
        """IBRD and FBRD, in 64ths, as they were when LCR_H was written (12.1.7.2)."""
        self.serial = Serial(machine, name, line, self.baud, self.receives, self.changed)
        self.held, self.waiting = 0, 0
        self.timeout: Event | None = None

    def baud(self) -> float:
        return self.clocks.peri() * 4 / max(1, self.divisor)

    def on(self, bit: int) -> bool:
        return self.values[self.CR] & (1 | 1 << bit) == 1 | 1 << bit

    def reach(self, *, receives: bool) -> bool:
        two, eleven = self.PINS[self.name][receives], self.PINS[self.name][2 + receives]
        return self.pins.reach(two, 2, receives=receives) or self.pins.reach(eleven, 11, receives=receives)

    def receives(self) -> bool:
        return self.on(9) and self.clocked() and bool(self.clocks.peri()) and self.reach(receives=True)

    def room(self) -> int:
        return 32 if self.values.get(self.LCR_H, 0) & 1 << 4 else 1

    def level(self, shift: int) -> int:
        """Characters at which a FIFO asks for service; 1 without FIFOs."""
        return self.LEVELS[self.values[self.IFLS] >> shift & 7] if self.room() > 1 else 1

    def changed(self) -> None:
        """A character has come or gone, or a register was written."""
        received, waiting = len(self.serial.received), len(self.serial.to_send)
        if received > self.held:
            if received >= self.level(3):
                self.raised |= self.RX
            self.watch()
        if received < self.level(3):
            self.raised &= ~self.RX
        if not received:
            self.raised &= ~self.RT
        limit = self.level(0) if self.room() > 1 else 0
        if waiting <= limit < self.waiting or (waiting == 0 and self.waiting and self.room() == 1):
            self.raised |= self.TX
        elif waiting > limit:
            self.raised &= ~self.TX
        if self.serial.overrun:
            self.raised |= self.OE
        self.held, self.waiting = received, waiting
        self.machine.line(self.irq, bool(self.raised & self.values.get(self.IMSC, 0)))

    def watch(self) -> None:
        """The receive timeout: 32 bits without a character (12.1.6.1)."""
        if self.timeout is not None:
            self.timeout.off = True
        self.timeout = self.machine.after(self.serial.character() * 32 // 10, self.late)

    def late(self) -> None:
        if self.serial.received:
            self.raised |= self.RT
            self.changed()

    def fetch(self, offset: int) -> int:
        serial = self.serial
        if offset == self.DR:
            flags = serial.overrun << 11 | serial.framing << 8
            serial.overrun = serial.framing = False
            return serial.take() | flags
        if offset == self.FR:
            serial.wait()
            full = len(serial.to_send) >= self.room()
            return ((not serial.to_send) << 7 | (len(serial.received) >= self.room()) << 6 | full << 5
                    | (not serial.received) << 4 | (serial.sending or bool(serial.to_send)) << 3)  # fmt: skip
        if offset == self.RIS:
            return self.raised
        if offset == self.MIS:
            return self.raised & self.values.get(self.IMSC, 0)
        return 0 if offset == self.ICR else super().fetch(offset)

    def store(self, offset: int, value: int) -> None:
        if offset == self.DR:
            self.send(value)
        elif offset == self.ICR:
            self.raised &= ~value
            if value & self.OE:
                self.serial.overrun = False
        elif offset == self.FR:
            self.refuse("FR is written")
        else:
            self.values[offset] = value
            if offset == self.LCR_H:
                self.divisor = (self.values.get(self.IBRD, 0) & 0xFFFF) * 64 + (self.values.get(self.FBRD, 0) & 63)
                self.serial.depth = self.room()
                if value & 0x6A != 0x60:
                    self.refuse("not 8N1")
            if offset == self.CR and value & 1:
                if not self.divisor:
                    self.refuse("UARTEN is set before the divisors are, with LCR_H after them")
                if not self.clocks.peri():
                    self.refuse("UARTEN is set while clk_peri does not run")
                if value & 1 << 9 and not self.reach(receives=True):
                    self.refuse("RXE is set while no pin is its RX, or its pad is isolated or has no input")
        self.serial.poll()
        self.changed()

    def send(self, value: int) -> None:
        if not self.on(8):
            self.refuse("a character is sent while UARTEN or TXE is clear")
        elif not self.reach(receives=False):
            self.refuse("a character is sent while no pin is its TX, or its pad is isolated")
        else:
            self.serial.send(value & 0xFF, self.room())


class Ticks(Registers):
    """8.5.2: what TIMER0, TIMER1 and the watchdog count."""

    AT: ClassVar[dict[str, int]] = {"TIMER0": 0x18, "TIMER1": 0x24, "WATCHDOG": 0x30}

    def __init__(self, machine: Machine, clocks: Clocks) -> None:
        super().__init__(machine, "TICKS", 0x40108000)
        self.clocks = clocks

    def hz(self, name: str) -> float:
        cycles = self.values.get(self.AT[name] + 4, 0) & 0x1FF
        return self.clocks.ref() / cycles if self.values.get(self.AT[name], 0) & 1 and cycles else 0.0

    def fetch(self, offset: int) -> int:
        value = super().fetch(offset)
        return value | (value & 1) << 1 if offset % 12 == 0 else value


class Timer(Registers):
    """12.8.5: the counter. No alarms."""

    TIMEHR, TIMELR, TIMERAWH, TIMERAWL = 0x08, 0x0C, 0x24, 0x28

    def __init__(self, machine: Machine, name: str, base: int, ticks: Ticks) -> None:
        super().__init__(machine, name, base)
        self.ticks, self.latched, self.counted, self.looked = ticks, 0, 0.0, machine.now

    def count(self) -> int:
        """Ticks at their present rate since the last look."""
        self.counted += (self.machine.now - self.looked) / self.machine.hz * self.ticks.hz(self.name)
        self.looked = self.machine.now
        return int(self.counted)

    def fetch(self, offset: int) -> int:
        if offset == self.TIMELR:
            self.latched = self.count() >> 32
            return self.count() & 0xFFFFFFFF
        if offset == self.TIMERAWL:
            return self.count() & 0xFFFFFFFF
        if offset == self.TIMERAWH:
            return self.count() >> 32
        return self.latched if offset == self.TIMEHR else super().fetch(offset)


class Watchdog(Registers):
    """12.9.7. It counts down ticks of the watchdog's tick generator."""

    CTRL, LOAD = 0x0, 0x4

    def __init__(self, machine: Machine, ticks: Ticks) -> None:
        super().__init__(machine, "WATCHDOG", 0x400D8000)
        self.ticks = ticks
        self.timer: Event | None = None

    def store(self, offset: int, value: int) -> None:
        self.values[offset] = value
        if offset == self.CTRL and value >> 31:
            self.machine.reset_part()
        elif offset in (self.CTRL, self.LOAD):
            if self.timer is not None:
                self.timer.off = True
                self.timer = None
            if self.values.get(self.CTRL, 0) >> 30 & 1:
                hz = self.ticks.hz("WATCHDOG")
                if not hz:
                    self.refuse("it is enabled while it has no ticks")
                    return
                micros = (self.values.get(self.LOAD, 0) & 0xFFFFFF) / hz * 1e6
                self.timer = self.machine.after(self.machine.cycles(micros), self.bite)

    def bite(self) -> None:
        self.refuse("the watchdog has reset the part")
        self.machine.reset_part()


class Rp2350(Machine):
    """RP2350A. Loads at 0x10000000 see what the cache holds: what the flash was when it was flushed last."""

    core = M33
    rams = (Area("SRAM", 0x20000000, 520 << 10),)
    hz = Clocks.ROSC_HZ

    def __init__(self, lines: Mapping[str, Line] | None = None, *, crystal: float = 12e6, dead: Iterable[str] = (),
                 seed: int = 0) -> None:  # fmt: skip
        super().__init__(dead=dead, seed=seed)
        self.uarts, self.crystal = dict(lines or {}), crystal
        self.cells = Cells(self, XIP, sectors((FLASH_BYTES >> 12, 4)))
        self.cached = (ctypes.c_ubyte * FLASH_BYTES)()

    def flush(self) -> None:
        ctypes.memmove(self.cached, self.cells.bytes, FLASH_BYTES)

    def entry(self) -> int:
        """The bootrom starts the vector table of an image that has an IMAGE_DEF in its first 4 KiB: 5.9.5."""
        if IMAGE_DEF not in self.cells.get(0, 4096):
            raise BoardError("there is no IMAGE_DEF in the first 4 KiB.", "Without it, the bootrom starts no image.")
        return XIP

    def build(self) -> None:
        self.flush()
        self.uc.mem_map_ptr(XIP, FLASH_BYTES, unicorn.UC_PROT_ALL, ctypes.addressof(self.cached))
        self.uc.mem_protect(XIP, FLASH_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.cells.map(XIP_UNCACHED)
        self.bootrom = Bootrom(self)
        self.bootrom.map()
        resets, xosc, pins = Resets(self), Xosc(self, self.crystal), Pins(self)
        clocks = Clocks(self, xosc)
        ticks = Ticks(self, clocks)
        for name, base in (("PLL_SYS", 0x40050000), ("PLL_USB", 0x40058000)):
            clocks.plls[name] = Pll(self, name, base, xosc, clocks.changed)
            self.add(clocks.plls[name])
        gated: list[Registers] = [*clocks.plls.values(), pins.io, pins.pads]
        for name, base, irq in (("UART0", 0x40070000, 33), ("UART1", 0x40078000, 34)):
            gated.append(Uart(self, name, base, irq, self.uarts.get(name) or Line(), clocks, pins))
        for name, base in (("TIMER0", 0x400B0000), ("TIMER1", 0x400B8000)):
            gated.append(Timer(self, name, base, ticks))
        for block in gated:
            block.clocked = resets.released(block.name)
            self.add(block)
        for block in (resets, xosc, clocks, ticks, Watchdog(self, ticks)):
            self.add(block)
        for name, base in (("SYSINFO", 0x40000000), ("SYSCFG", 0x40008000), ("PSM", 0x40018000), ("ROSC", 0x400E8000),
                           ("IO_QSPI", 0x40030000), ("PADS_QSPI", 0x40040000), ("ACCESSCTRL", 0x40060000),
                           ("BUSCTRL", 0x40068000), ("XIP_CTRL", 0x400C8000), ("QMI", 0x400D0000),
                           ("POWMAN", 0x40100000), ("SIO", 0xD0000000)):  # fmt: skip
            self.add(Registers(self, name, base))
        boot_ram = Registers(self, "BOOTRAM", 0x400E0000)
        boot_ram.values = {0: 0x47704770}  # the XIP setup function: bx lr, as XIP is always set up here (5.4.8.10)
        self.add(boot_ram)

    def handler_in_flash(self) -> int | None:
        """An exception that may be taken now and whose vector or handler is in flash."""
        if self.uc.reg_read(arm.UC_ARM_REG_PRIMASK):
            return None
        numbers = sorted(self.system.enabled | ({15} if self.system.values.get(self.system.CSR, 0) & 3 == 3 else set()))
        vectors = self.system.values[self.system.VTOR]
        for number in numbers:
            (handler,) = struct.unpack("<I", self.peek(vectors + 4 * number, 4))
            if vectors >> 28 == 1 or handler >> 28 == 1:
                return number
        return None

    def flash_store(self, address: int, size: int, value: int) -> None:
        raise BoardError(f"store at {address:#010x} (pc {self.pc:#010x}).", "The flash and the ROM are not written so.")
