# SPDX-License-Identifier: Apache-2.0
"""What runs an image: a core of the M profile with its exceptions, memories, blocks of registers, time, power.

Unicorn executes instructions. It has no exceptions of the M profile: entry and return are here (Armv7-M architecture
reference manual, B1.5.6 and B1.5.8; Armv8-M, B3.18 and B3.19). Time is counted in cycles of the core, one for each
halfword of code, plus what the core waits; no pipeline, cache or wait state is modelled.
"""

from __future__ import annotations

import ctypes
import functools
import heapq
import os
import random
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import unicorn
import unicorn.arm_const as arm
from unicorn.unicorn_py3 import unicorn as binding
from unicorn.unicorn_py3.unicorn import Uc, UcError

from medyate.errors import MedyateError

if TYPE_CHECKING:
    from .flash import Cells
    from .system import System
    from .uart import Line

HERE = Path(__file__).parent
FOREVER = 1 << 62
END = 0xFFFFFFFE
"""No code is there: where emu_start would end."""
RUNS, DUE, SHUT = range(3)
NMI, HARD_FAULT, BUS_FAULT, SVCALL, PENDSV, SYSTICK = 2, 3, 5, 11, 14, 15


class BoardError(MedyateError):
    """The image does what the part cannot do: reads where nothing is, executes data, leaves no stack."""


class PowerCut(Exception):
    """Power went where a test had asked for it. RAM is lost; call power_on()."""


class Clock(ctypes.Structure):
    """struct clock of clock.c."""

    now: int
    due: int
    shut_from: int
    shut_size: int
    why: int
    _fields_ = (
        ("now", ctypes.c_uint64),
        ("due", ctypes.c_uint64),
        ("shut_from", ctypes.c_uint32),
        ("shut_size", ctypes.c_uint32),
        ("why", ctypes.c_uint32),
        ("stop", ctypes.c_void_p),
    )


@functools.cache
def clock_hook() -> ctypes.CDLL:
    """clock.c, compiled once for each process."""
    folder = Path(tempfile.mkdtemp())
    command = [os.environ.get("CC", "cc"), "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, str(HERE / "clock.c"), "-o", str(folder / "clock.so")], check=True)
    library = ctypes.CDLL(str(folder / "clock.so"))
    (folder / "clock.so").unlink()
    folder.rmdir()
    return library


class RegisterSet:
    """Registers of the core that are read or written in one call of the engine, in this order."""

    def __init__(self, *numbers: int) -> None:
        self.count = len(numbers)
        self.numbers = (ctypes.c_int * self.count)(*numbers)
        self.values = (ctypes.c_uint64 * self.count)()
        first = ctypes.addressof(self.values)
        self.pointers = (ctypes.c_void_p * self.count)(*(first + 8 * n for n in range(self.count)))

    def read(self, uc: Uc) -> list[int]:
        status = binding.uclib.uc_reg_read_batch(uc._uch, self.numbers, self.pointers, self.count)
        assert status == 0
        return [value & 0xFFFFFFFF for value in self.values]

    def write(self, uc: Uc, *values: int) -> None:
        for number, value in enumerate(values):
            self.values[number] = value
        status = binding.uclib.uc_reg_write_batch(uc._uch, self.numbers, self.pointers, self.count)
        assert status == 0


SAVED = (*range(arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R3 + 1), arm.UC_ARM_REG_R12, arm.UC_ARM_REG_LR)
FRAME_OUT = RegisterSet(*SAVED, arm.UC_ARM_REG_CONTROL, arm.UC_ARM_REG_SP, arm.UC_ARM_REG_PC, arm.UC_ARM_REG_XPSR)
FRAME_IN = RegisterSet(*SAVED, arm.UC_ARM_REG_SP, arm.UC_ARM_REG_XPSR, arm.UC_ARM_REG_PC)
FLOATS = RegisterSet(*(arm.UC_ARM_REG_S0 + n for n in range(16)), arm.UC_ARM_REG_FPSCR)
HANDLER = RegisterSet(
    arm.UC_ARM_REG_SP, arm.UC_ARM_REG_CONTROL, arm.UC_ARM_REG_XPSR, arm.UC_ARM_REG_LR, arm.UC_ARM_REG_PC
)
BACK = RegisterSet(arm.UC_ARM_REG_XPSR, arm.UC_ARM_REG_CONTROL)
MASKS = RegisterSet(arm.UC_ARM_REG_BASEPRI, arm.UC_ARM_REG_PRIMASK, arm.UC_ARM_REG_FAULTMASK)


class Block:
    """A block of registers. Offsets are multiples of 4; narrower accesses see a part of the word."""

    name = "block"
    reset: ClassVar[dict[int, int]] = {}
    """Values after reset, where not 0."""

    def __init__(self, machine: Machine, base: int, size: int = 0x400) -> None:
        self.machine, self.base, self.size = machine, base, size
        self.values = dict(self.reset)
        self.clocked: Callable[[], bool] = lambda: True

    def fetch(self, offset: int) -> int:
        """What a load finds."""
        return self.values.get(offset, 0)

    def store(self, offset: int, value: int) -> None:
        """What a store does."""
        self.values[offset] = value

    def store_part(self, offset: int, size: int, value: int) -> None:
        """A store of 1 or 2 bytes: the rest of the word is stored as it was last."""
        shift, mask = (offset & 3) * 8, (1 << size * 8) - 1
        word = self.values.get(offset & ~3, 0)
        self.store(offset & ~3, word & ~(mask << shift) | (value & mask) << shift)

    def read(self, offset: int, size: int) -> int:
        if not self.clocked():
            self.refuse("is read without its clock")
            return 0
        return self.fetch(offset & ~3) >> (offset & 3) * 8 & (1 << size * 8) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if not self.clocked():
            self.refuse("is written without its clock")
        elif size == 4:
            self.store(offset, value & 0xFFFFFFFF)
        else:
            self.store_part(offset, size, value)

    def refuse(self, what: str) -> None:
        self.machine.refuse(f"{self.name}: {what}")


@dataclass(frozen=True)
class Area:
    """A memory of the part."""

    name: str
    address: int
    size: int


@dataclass
class Core:
    """Names of a core for Unicorn, and what differs between the cores."""

    model: int
    cpuid: int
    priority_bits: int


M4 = Core(arm.UC_CPU_ARM_CORTEX_M4, 0x410FC241, 4)
M7 = Core(arm.UC_CPU_ARM_CORTEX_M7, 0x411FC270, 4)
M33 = Core(arm.UC_CPU_ARM_CORTEX_M33, 0x411FD210, 4)


@dataclass(order=True)
class Event:
    at: int
    order: int
    call: Callable[[], None] = field(compare=False)
    off: bool = field(default=False, compare=False)


class Machine:
    """A part with power on. Subclasses add memories and blocks in `build`, called at each power-on and reset.

    `dead` names oscillators that never get ready. `refusals` counts by name all that the part refused or that its
    manual forbids. `hz` is the clock of the core now.
    """

    core: Core
    cells: Cells
    uarts: dict[str, Line]
    uc: Uc
    system: System
    slice = 50_000
    """Cycles between two looks at the lines, and at `until` of `run`."""
    rams: tuple[Area, ...] = ()
    hz: float

    def __init__(self, *, dead: Iterable[str] = (), seed: int = 0) -> None:
        self.dead = frozenset(dead)
        self.random = random.Random(seed)
        self.refusals: Counter[str] = Counter()
        self.resets = 0
        self.wait: Callable[[float], None] | None = None
        """Sleeps so many seconds, where whoever is on the line lives in real time: called while the core sleeps."""
        self.micros = 0.0
        """Time until the last change of `hz`, in microseconds."""
        self.clock = Clock()
        self.micros_from = 0

    # What parts add.

    def build(self) -> None:
        """Maps memories and adds blocks; state that a reset does not keep begins here."""
        raise NotImplementedError

    def entry(self) -> int:
        """Address of the vector table after reset."""
        raise NotImplementedError

    def flash_store(self, address: int, size: int, value: int) -> None:
        """A store into a memory that is not written as RAM is."""
        raise BoardError(f"store of {size} bytes at {address:#010x} (pc {self.pc:#010x}).", "Nothing there is RAM.")

    def flash_load(self, address: int, size: int) -> bool:
        """A load from a page that the part shut for loads; False: a bus fault."""
        return False

    def shut(self, address: int) -> None:
        """Code is about to run in a flash that is busy: it waits."""
        self.clock.shut_size = 0
        self.fetch_vector(address)

    # Power and memory.

    def power_on(self) -> None:
        """From no power, or from a reset: RAM holds anything, registers their reset values."""
        self.start(keep_ram=False)

    def start(self, *, keep_ram: bool) -> None:
        if self.resets or keep_ram:
            self.micros = self.microseconds
        kept = {ram.address: bytes(self.uc.mem_read(ram.address, ram.size)) for ram in self.rams} if keep_ram else {}
        self.uc = Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(self.core.model)
        self.blocks: dict[int, Block] = {}
        self.events: list[Event] = []
        self.order = 0
        self.lines: set[int] = set()
        self.pollers: list[Callable[[], None]] = []
        self.error: Exception | None = None
        self.leaving = self.called = False
        self.in_bytes = (0, 0)
        """The unaligned store that comes again in bytes."""
        self.read_twice: tuple[int, int, int] = (0, 0, 0)
        self.clock = Clock(now=0, due=0, stop=ctypes.cast(binding.uclib.uc_emu_stop, ctypes.c_void_p))
        self.micros_from = 0
        for ram in self.rams:
            self.uc.mem_map(ram.address, ram.size)
            self.uc.mem_write(ram.address, kept.get(ram.address) or self.random.randbytes(ram.size))
        from .system import System

        self.hook()
        self.system = System(self)
        self.add(self.system)
        self.build()
        self.map_blocks()
        vectors = self.entry()
        self.system.values[self.system.VTOR] = vectors
        stack, reset = struct.unpack("<II", self.peek(vectors, 8))
        if not reset & 1:
            raise BoardError(f"the reset vector at {vectors + 4:#010x} is {reset:#010x}.", "Bit 0 must be set: Thumb.")
        self.uc.reg_write(arm.UC_ARM_REG_SP, stack & ~3)
        self.uc.reg_write(arm.UC_ARM_REG_LR, 0xFFFFFFFF)
        self.uc.reg_write(arm.UC_ARM_REG_PC, reset | 1)

    def peek(self, address: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(address, size))

    def add(self, block: Block) -> Block:
        """Puts a block at its address; pages of 1 KiB, as no two blocks share one."""
        for page in range(block.base >> 10, (block.base + block.size - 1 >> 10) + 1):
            self.blocks[page] = block
        return block

    def plain(self, *named: tuple[str, int]) -> None:
        """Blocks that keep what they are given and do nothing."""
        for name, base in named:
            self.add(Block(self, base)).name = name

    def map_blocks(self) -> None:
        pages = sorted({page >> 2 for page in self.blocks})
        while pages:
            count = next((n for n in range(1, len(pages)) if pages[n] != pages[0] + n), len(pages))
            base = pages[0] << 12
            self.uc.mmio_map(base, count << 12, self.mmio_read, base, self.mmio_write, base)
            pages = pages[count:]

    def hook(self) -> None:
        uc, handle = self.uc, ctypes.c_size_t()
        status = binding.uclib.uc_hook_add(
            uc._uch, ctypes.byref(handle), ctypes.c_int(unicorn.UC_HOOK_BLOCK),
            ctypes.cast(clock_hook().clock_block, ctypes.c_void_p), ctypes.byref(self.clock),
            ctypes.c_uint64(1), ctypes.c_uint64(0),
        )  # fmt: skip
        assert status == 0
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE_PROT, self.on_store)
        uc.hook_add(unicorn.UC_HOOK_MEM_READ_PROT, self.on_load)
        uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED | unicorn.UC_HOOK_MEM_FETCH_PROT, self.on_nothing)
        uc.hook_add(unicorn.UC_HOOK_INTR, self.on_exception)

    # Called by Unicorn. An error must not cross its C frames: it is kept, and `run` raises it.

    def guarded(self, call: Callable[[], Any]) -> Any:
        if self.error is not None:  # the core is about to stop: nothing more happens
            return 0
        try:
            return call()
        except (MedyateError, PowerCut) as error:
            self.error = self.error or error
            self.uc.emu_stop()
            return 0

    def mmio_read(self, _uc: object, offset: int, size: int, base: int) -> int:
        address = base + offset
        value: int = self.guarded(lambda: self.load(address, size))
        last, same, times = self.read_twice
        times = times + 1 if (last, same) == (address, value) else 0
        self.read_twice = address, value, times
        if times > 8:  # a loop that waits: nothing changes before the next event
            self.spin(min(1000, times))
        return value

    def mmio_write(self, _uc: object, offset: int, size: int, value: int, base: int) -> None:
        address = base + offset
        self.read_twice = (0, 0, 0)
        self.guarded(lambda: self.save(address, size, value))

    def block_at(self, address: int, access: str) -> Block:
        block = self.blocks.get(address >> 10)
        if block is None:
            raise self.nothing(address, access)
        return block

    def load(self, address: int, size: int) -> int:
        block = self.block_at(address, "load")
        return block.read(address - block.base, size)

    def save(self, address: int, size: int, value: int) -> None:
        block = self.block_at(address, "store")
        block.write(address - block.base, size, value)

    def nothing(self, address: int, access: str) -> BoardError:
        return BoardError(
            f"{access} at {address:#010x} (pc {self.pc:#010x}).", "The part, or its model, has nothing there."
        )

    def on_store(self, _uc: object, _access: int, address: int, size: int, value: int, _data: object) -> bool:
        """Unicorn drops the store: flash_store has done what becomes of it. An unaligned one comes again in bytes."""
        first, end = self.in_bytes
        if size == 1 and first <= address < end:
            return True
        self.in_bytes = (address, address + size) if address % size else (0, 0)
        self.guarded(lambda: self.flash_store(address, size, value & (1 << size * 8) - 1))
        self.clock.due = 0
        return True

    def on_load(self, _uc: object, _access: int, address: int, size: int, _value: int, _data: object) -> bool:
        return bool(self.guarded(lambda: self.flash_load(address, size)))

    def on_nothing(self, _uc: object, access: int, address: int, _size: int, _value: int, _data: object) -> bool:
        if self.error is None:
            kind = {unicorn.UC_MEM_READ_UNMAPPED: "load", unicorn.UC_MEM_WRITE_UNMAPPED: "store"}.get(access, "fetch")
            self.error = self.nothing(address, kind)
        return False

    def on_exception(self, _uc: object, number: int, _data: object) -> None:
        if number == 8:
            self.leaving = True
        elif number == 2:
            self.called = True
        else:
            self.error = BoardError(f"exception {number} (pc {self.pc:#010x}).", "Look at the instruction there.")
        self.uc.emu_stop()

    # Time.

    @property
    def pc(self) -> int:
        return int(self.uc.reg_read(arm.UC_ARM_REG_PC))

    @property
    def now(self) -> int:
        return int(self.clock.now)

    @property
    def microseconds(self) -> float:
        """Time since power came first."""
        return self.micros + (self.now - self.micros_from) / self.hz * 1e6

    def set_hz(self, hz: float) -> None:
        if hz != self.hz:
            self.micros, self.micros_from, self.hz = self.microseconds, self.now, hz

    def cycles(self, micros: float) -> int:
        return max(1, round(micros * self.hz / 1e6))

    def after(self, cycles: int, call: Callable[[], None]) -> Event:
        """Calls `call` when the core has run so many cycles more."""
        self.order += 1
        event = Event(self.now + cycles, self.order, call)
        heapq.heappush(self.events, event)
        self.clock.due = min(self.clock.due, event.at)
        return event

    def next_event(self) -> int:
        while self.events and self.events[0].off:
            heapq.heappop(self.events)
        return self.events[0].at if self.events else FOREVER

    def fire(self) -> None:
        while self.next_event() <= self.now:
            heapq.heappop(self.events).call()

    def spin(self, cycles: int) -> None:
        """The core polls: nothing changes before the next event, so time may go on to there."""
        self.clock.now = max(self.now, min(self.now + cycles, self.next_event()))

    def stall(self, until: int) -> None:
        """The core waits for a memory: nothing runs, no interrupt is taken."""
        self.clock.now = max(self.now, until)
        self.clock.due = 0

    def line(self, number: int, level: bool) -> None:
        """An interrupt line of a block: `number` is that of the interrupt."""
        if level and number not in self.lines:
            self.lines.add(number)
            self.clock.due = 0
        elif not level:
            self.lines.discard(number)

    def look(self) -> None:
        """Something that decides on interrupts has changed."""
        self.clock.due = 0

    def refuse(self, what: str) -> None:
        self.refusals[what] += 1

    def reset_part(self) -> None:
        """A system reset: RAM and flash stay."""
        self.error = self.error or Reset()
        self.uc.emu_stop()

    # Running.

    def run(self, cycles: int = FOREVER, until: Callable[[], bool] | None = None) -> bool:
        """Runs until `until` holds (True), or for so many cycles (False). Raises BoardError, PowerCut."""
        end = min(FOREVER, self.now + cycles)
        masked = 64
        while True:
            self.fire()
            for poll in self.pollers:
                poll()
            if until is not None and until():
                return True
            if self.now >= end:
                return False
            taken = self.system.take()
            if taken is not None:
                self.enter(taken)
                masked = 64
            self.clock.due = min(self.next_event(), self.now + self.slice, end)
            if self.system.waiting():  # a mask may open at any instruction
                self.clock.due = min(self.clock.due, self.now + masked)
                masked = min(2 * masked, 4096)
            resets = self.resets
            self.step()
            if self.resets != resets:
                end = min(FOREVER, self.now + cycles)

    def step(self) -> None:
        """Runs to the next stop, whatever its reason, and does what the reason asks for."""
        clock = self.clock
        clock.why = RUNS
        self.in_bytes = (0, 0)
        failed: UcError | None = None
        try:
            if self.error is None:
                self.uc.emu_start(self.pc | 1, END)
        except UcError as error:
            failed = error
        self.system.check_fpu()
        if isinstance(self.error, Reset):
            self.resets += 1
            self.start(keep_ram=True)
        elif self.error is not None:
            kept, self.error = self.error, None
            raise kept
        elif self.leaving:
            self.leaving = False
            self.leave(self.pc | 1)
        elif self.called:
            self.called = False
            self.system.pended.add(SVCALL)
        elif failed is not None:
            self.failed(failed)
        elif clock.why == SHUT:
            self.shut(self.pc)
        elif clock.why == RUNS:
            self.sleep()

    def failed(self, error: UcError) -> None:
        if error.errno == unicorn.UC_ERR_READ_PROT and self.system.fault_pending():
            return
        hint = self.peek(self.pc - 2, 2) if error.errno == unicorn.UC_ERR_INSN_INVALID else b""
        if hint in (b"\x20\xbf", b"\x10\xbf"):  # WFE, YIELD: may end at once
            return
        raise BoardError(f"{error} (pc {self.pc:#010x}).", "Look at the instruction there.")

    def sleep(self) -> None:
        """WFI: time goes on to the next event, or to the next look at the lines."""
        if not self.system.wakes():
            until = max(self.now, min(self.next_event(), self.now + self.slice))
            if self.wait is not None:
                self.wait((until - self.now) / self.hz)
            self.clock.now = until

    def enter(self, number: int) -> None:
        """Exception entry: pushes the frame, takes the vector."""
        *words, control, stack, address, xpsr = FRAME_OUT.read(self.uc)
        floats, handler = bool(control & 4), bool(xpsr & 0x1FF)
        frame = stack - (0x68 if floats else 0x20) & ~7
        words += [address & ~1, xpsr & ~(1 << 9) | (stack & 4) << 7]
        if floats:
            words += [*FLOATS.read(self.uc), 0]
        try:
            self.uc.mem_write(frame, struct.pack(f"<{len(words)}I", *words))
        except UcError:
            raise BoardError(f"the stack at {frame:#010x} is no RAM (pc {self.pc:#010x}).", "Check it.") from None
        link = 0xFFFFFFE1 | (0 if floats else 0x10) | (0 if handler else 8) | (0 if handler or not control & 2 else 4)
        at = self.system.values[self.system.VTOR] + 4 * number
        self.system.active.append(number)
        self.fetch_vector(at)
        (vector,) = struct.unpack("<I", self.peek(at, 4))
        if not vector & 1:
            raise BoardError(f"exception {number} has the vector {vector:#010x}.", "It is no Thumb code: no handler.")
        self.fetch_vector(vector)
        control &= ~4 if handler else ~6
        HANDLER.write(self.uc, frame, control, xpsr & 0xF8000000 | 1 << 24 | number, link, vector | 1)
        self.clock.now += 12  # Cortex-M4 technical reference manual, 3.9.1

    def fetch_vector(self, address: int) -> None:
        """The core is about to read a vector, or code, at `address`: in a flash that is busy, it waits."""
        for place in self.cells.places:
            if 0 <= address - place < self.cells.size:
                self.cells.finish(self.cells.bank_at(address - place))

    def leave(self, link: int) -> None:
        """Exception return: EXC_RETURN has been branched to."""
        uc = self.uc
        if not self.system.active:
            raise BoardError(f"a branch to {link:#010x} with no exception active.", "A stack was overwritten, perhaps.")
        if self.system.active.pop() != NMI:
            uc.reg_write(arm.UC_ARM_REG_FAULTMASK, 0)
        floats, control = not link & 0x10, uc.reg_read(arm.UC_ARM_REG_CONTROL)
        outer = self.system.active[-1] if self.system.active else 0
        BACK.write(uc, 1 << 24 | outer, control & ~6 | (2 if link & 4 else 0) | (4 if floats else 0))
        frame = uc.reg_read(arm.UC_ARM_REG_SP)  # of the stack that the frame is on
        size = 0x68 if floats else 0x20
        words = struct.unpack(f"<{size // 4}I", self.peek(frame, size))
        if floats:
            FLOATS.write(uc, *words[8:25])
        stack = frame + size + (4 if words[7] & 1 << 9 else 0)
        FRAME_IN.write(uc, *words[:6], stack, words[7] & ~(1 << 9 | 0x1FF) | outer, words[6] | 1)
        self.clock.now += 12


class Reset(Exception):
    """SYSRESETREQ or a watchdog."""
