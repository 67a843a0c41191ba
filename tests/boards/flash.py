# SPDX-License-Identifier: Apache-2.0
"""Cells of a flash: what they hold without power, how long operations take, what a power cut leaves."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import unicorn

from .image import Image
from .machine import BoardError, Machine, PowerCut

BEFORE, INSIDE, AFTER = range(3)
"""Where in an operation power is cut."""
NOWHERE = 0xFFFFFFFC
ERASED, WRITTEN, BROKEN = range(3)
"""What an operation leaves; BROKEN: power was cut in it."""


@dataclass(frozen=True)
class Times:
    """Of an operation, in microseconds, from the part's data sheet."""

    typical: float
    maximum: float


@dataclass(frozen=True)
class Sector:
    """What is erased at once; an offset in the cells."""

    start: int
    size: int


def sectors(*runs: tuple[int, int]) -> tuple[Sector, ...]:
    """Sectors that follow each other, from (count, KiB)."""
    sizes = [kib << 10 for count, kib in runs for _ in range(count)]
    return tuple(Sector(sum(sizes[:n]), size) for n, size in enumerate(sizes))


class Cells:
    """The cells of a part. They live as long as the machine: power comes and goes.

    `operations` counts erases and programs. The one with the number `cut_at` (from 1) is cut, BEFORE, INSIDE or
    AFTER it. `typical_us` and `maximum_us` add up what the data sheet says of each; the core waits the typical times,
    or the largest with `slow`.
    """

    def __init__(self, machine: Machine, address: int, layout: Sequence[Sector], banks: int = 1) -> None:
        self.machine, self.address, self.layout = machine, address, tuple(layout)
        self.size = self.layout[-1].start + self.layout[-1].size
        self.banks = banks
        self.bytes = (ctypes.c_ubyte * self.size)()
        ctypes.memset(self.bytes, 0xFF, self.size)
        self.operations, self.cut_at, self.cut_phase, self.slow = 0, 0, INSIDE, False
        self.typical_us = self.maximum_us = 0.0
        self.erases: Counter[int] = Counter()
        """By sector."""
        self.programs = 0
        self.places: tuple[int, ...] = ()
        self.busy_until = [0] * banks
        """By bank: each does one operation at a time."""
        self.tear: list[Callable[[], None] | None] = [None] * banks
        """What the operation in progress becomes when power goes."""

    def map(self, *addresses: int) -> None:
        """The cells as read-only memory; stores come to Machine.flash_store."""
        self.places = addresses
        for address in addresses:
            self.machine.uc.mem_map_ptr(address, self.size, unicorn.UC_PROT_ALL, ctypes.addressof(self.bytes))
            # Unicorn drops a store that a hook has seen only where mem_protect made the memory read-only.
            self.machine.uc.mem_protect(address, self.size, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.busy_until, self.tear = [0] * self.banks, [None] * self.banks

    def holds(self, address: int) -> bool:
        """Whether the core sees these cells at an address."""
        return any(0 <= address - place < self.size for place in self.places)

    def load(self, image: Image) -> None:
        """What a programmer of flash does with an ELF file; nothing is counted."""
        for address, data in image.segments:
            offset = address - self.address
            if not 0 <= offset <= self.size - len(data):
                raise BoardError(
                    f"a segment at {address:#010x}.", "It is not in the part's flash: see the linker script."
                )
            self.put(offset, data)

    def put(self, offset: int, data: bytes) -> None:
        ctypes.memmove(ctypes.addressof(self.bytes) + offset, data, len(data))

    def get(self, offset: int, size: int) -> bytes:
        return bytes(self.bytes[offset : offset + size])

    def read_file(self, path: Path) -> None:
        data = path.read_bytes()
        if len(data) != self.size:
            raise BoardError(f"{path}: {len(data)} bytes.", f"The flash has {self.size}.")
        self.put(0, data)

    def write_file(self, path: Path) -> None:
        path.write_bytes(bytes(self.bytes))

    def sector_at(self, offset: int) -> int:
        return next(n for n, s in enumerate(self.layout) if s.start <= offset < s.start + s.size)

    def bank_at(self, offset: int) -> int:
        return offset * self.banks // self.size

    def busy(self, bank: int = 0) -> bool:
        return self.machine.now < self.busy_until[bank]

    def poll(self, bank: int = 0) -> bool:
        """Whether an operation goes on, asked by a status register: a loop that asks need not be run in full."""
        if self.busy(bank):
            self.machine.spin(max(500, (self.busy_until[bank] - self.machine.now) // 32))
        return self.busy(bank)

    def finish(self, bank: int = 0) -> None:
        """The core waits for the end of the operation, if there is one."""
        if self.busy(bank):
            self.machine.stall(self.busy_until[bank])

    def erase(self, number: int, times: Times) -> None:
        sector = self.layout[number]
        old = self.get(sector.start, sector.size)
        self.erases[number] += 1
        self.operate(ERASED, times, sector.start, b"\xff" * sector.size, lambda: self.torn_erase(old))

    def program(self, offset: int, data: bytes, times: Times) -> None:
        """Bits only clear."""
        old = self.get(offset, len(data))
        new = bytes(a & b for a, b in zip(old, data, strict=True))
        self.programs += 1
        self.operate(WRITTEN, times, offset, new, lambda: self.torn_program(old, new))

    def sets_bits(self, offset: int, data: bytes) -> bool:
        """Whether data has ones where the cells do not, so that it will not be there. Bytes of 0xFF are left out:
        they stand for what is to stay as it is."""
        return any(~a & b for a, b in zip(self.get(offset, len(data)), data, strict=True) if b != 0xFF)

    def torn_erase(self, old: bytes) -> bytes:
        """Some of the cells have become ones, at the front all of them: where it stopped is drawn."""
        done = self.machine.random.randrange(len(old))
        noise = self.machine.random.randbytes(len(old) - done)
        return b"\xff" * done + bytes(a | b for a, b in zip(old[done:], noise, strict=True))

    def torn_program(self, old: bytes, new: bytes) -> bytes:
        """Some of the bits that were to clear have cleared."""
        noise = self.machine.random.randbytes(len(old))
        return bytes(a & (b | c) for a, b, c in zip(old, new, noise, strict=True))

    def operate(self, state: int, times: Times, offset: int, new: bytes, torn: Callable[[], bytes]) -> None:
        """One operation of the flash: the cells change now, the time goes on from here."""
        self.operations += 1
        self.typical_us += times.typical
        self.maximum_us += times.maximum
        cut = self.operations == self.cut_at
        if cut:
            self.cut_at = 0
            if self.cut_phase == BEFORE:
                raise PowerCut
            if self.cut_phase == INSIDE:
                self.settle(BROKEN, offset, torn())
                raise PowerCut
        self.settle(state, offset, new)
        if cut:
            raise PowerCut
        bank = self.bank_at(offset)
        self.tear[bank] = lambda: self.settle(BROKEN, offset, torn())
        micros = times.maximum if self.slow else times.typical
        self.busy_until[bank] = self.machine.now + self.machine.cycles(micros)

    def settle(self, _state: int, offset: int, data: bytes) -> None:
        """An operation has made cells ERASED or WRITTEN, or was cut (BROKEN)."""
        self.put(offset, data)

    def cut(self) -> None:
        """Power goes now, whatever is going on."""
        for bank, tear in enumerate(self.tear):
            if tear is not None and self.busy(bank):
                tear()
            self.tear[bank] = None


class EccCells(Cells):
    """Cells in words with an error-correcting code: a word is programmed once between two erases.

    Programmed again, or cut, it is BROKEN: a load of it is an error that the code finds but cannot correct. An erase
    that was cut leaves broken words, too. A file holds the states behind the cells, a byte for each word.
    """

    WORD = 32

    def __init__(self, machine: Machine, address: int, layout: Sequence[Sector], banks: int = 1) -> None:
        super().__init__(machine, address, layout, banks)
        self.states = bytearray(self.size // self.WORD)

    def words(self, offset: int, size: int) -> range:
        return range(offset // self.WORD, (offset + size - 1) // self.WORD + 1)

    def word(self, number: int) -> bytes:
        return self.get(number * self.WORD, self.WORD)

    def put(self, offset: int, data: bytes) -> None:
        super().put(offset, data)
        for word in self.words(offset, len(data)):
            self.states[word] = ERASED if self.word(word) == b"\xff" * self.WORD else WRITTEN

    def settle(self, state: int, offset: int, data: bytes) -> None:
        words = self.words(offset, len(data))
        before = [(self.states[word], self.word(word)) for word in words]
        super().settle(state, offset, data)
        for word, (was, old) in zip(words, before, strict=True):
            new = self.word(word)
            if state == WRITTEN:
                self.states[word] = WRITTEN if was == ERASED else was if new == old else BROKEN
            elif state == BROKEN and new == old:
                self.states[word] = was
            elif state == BROKEN:
                self.states[word] = ERASED if new == b"\xff" * self.WORD else BROKEN
        self.machine.after(1, self.protect)

    def broken(self, offset: int) -> bool:
        return self.states[offset // self.WORD] == BROKEN

    def map(self, *addresses: int) -> None:
        super().map(*addresses)
        self.shut_pages: set[int] = set()
        self.watch: int | None = None
        self.protect()

    def protect(self) -> None:
        """Shuts pages with broken words for loads, so that Machine.flash_load sees each."""
        pages = set()
        at = self.states.find(BROKEN)
        while at >= 0:
            pages.add(at * self.WORD & ~0xFFF)
            at = self.states.find(BROKEN, at + 1)
        for place in self.places:
            for page in self.shut_pages ^ pages:
                rights = unicorn.UC_PROT_EXEC | (0 if page in pages else unicorn.UC_PROT_READ)
                self.machine.uc.mem_protect(place + page, 0x1000, rights)
        self.shut_pages = pages
        self.watch_loads()

    def watch_loads(self) -> None:
        """Unicorn forgets that a page is shut once it let a load through, unless loads are hooked: here, of nothing."""
        uc = self.machine.uc
        if bool(self.shut_pages) == (self.watch is not None):
            return
        if self.watch is None:
            self.watch = uc.hook_add(unicorn.UC_HOOK_MEM_READ, lambda *_: None, None, NOWHERE, NOWHERE)
        else:
            uc.hook_del(self.watch)
            self.watch = None
        uc.ctl_flush_tb()

    def read_file(self, path: Path) -> None:
        data = path.read_bytes()
        if len(data) != self.size + len(self.states):
            raise BoardError(
                f"{path}: {len(data)} bytes.", f"The flash and its states have {self.size + len(self.states)}."
            )
        self.put(0, data[: self.size])
        self.states[:] = data[self.size :]

    def write_file(self, path: Path) -> None:
        path.write_bytes(bytes(self.bytes) + bytes(self.states))
