# SPDX-License-Identifier: Apache-2.0
"""Cells of a flash: what they hold without power, how long operations take, what a power cut leaves."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import unicorn

from .machine import FOREVER, BoardError, Image, Machine, PowerCut

BEFORE, INSIDE, AFTER = range(3)
"""Where in an operation power is cut."""


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

    def __init__(self, machine: Machine, address: int, layout: Sequence[Sector]) -> None:
        self.machine, self.address, self.layout = machine, address, tuple(layout)
        self.size = self.layout[-1].start + self.layout[-1].size
        self.bytes = (ctypes.c_ubyte * self.size)()
        ctypes.memset(self.bytes, 0xFF, self.size)
        self.operations, self.cut_at, self.cut_phase, self.slow = 0, 0, INSIDE, False
        self.typical_us = self.maximum_us = 0.0
        self.erases: Counter[int] = Counter()
        """By sector."""
        self.programs = 0
        self.places: tuple[int, ...] = ()
        self.busy_until = 0
        self.tear: Callable[[], None] | None = None
        """What the operation in progress becomes when power goes."""

    def map(self, *addresses: int) -> None:
        """The cells as read-only memory; stores come to Machine.flash_store."""
        self.places = addresses
        for address in addresses:
            self.machine.uc.mem_map_ptr(address, self.size, unicorn.UC_PROT_ALL, ctypes.addressof(self.bytes))
            # Unicorn drops a store that a hook has seen only where mem_protect made the memory read-only.
            self.machine.uc.mem_protect(address, self.size, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.busy_until, self.tear = 0, None

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

    @property
    def busy(self) -> bool:
        return self.machine.now < self.busy_until

    def poll(self) -> bool:
        """Whether an operation goes on, asked by a status register: a loop that asks need not be run in full."""
        if self.busy:
            self.machine.spin(max(500, (self.busy_until - self.machine.now) // 32))
        return self.busy

    def erase(self, number: int, times: Times) -> None:
        sector = self.layout[number]
        old = self.get(sector.start, sector.size)
        self.operate(times, sector.start, b"\xff" * sector.size, lambda: self.torn_erase(old))
        self.erases[number] += 1

    def program(self, offset: int, data: bytes, times: Times) -> None:
        """Bits only clear."""
        old = self.get(offset, len(data))
        new = bytes(a & b for a, b in zip(old, data, strict=True))
        self.operate(times, offset, new, lambda: self.torn_program(old, new))
        self.programs += 1

    def torn_erase(self, old: bytes) -> bytes:
        """Some of the cells have become ones, at the front all of them: where it stopped is drawn."""
        done = self.machine.random.randrange(len(old))
        noise = self.machine.random.randbytes(len(old) - done)
        return b"\xff" * done + bytes(a | b for a, b in zip(old[done:], noise, strict=True))

    def torn_program(self, old: bytes, new: bytes) -> bytes:
        """Some of the bits that were to clear have cleared."""
        noise = self.machine.random.randbytes(len(old))
        return bytes(a & (b | c) for a, b, c in zip(old, new, noise, strict=True))

    def operate(self, times: Times, offset: int, new: bytes, torn: Callable[[], bytes]) -> None:
        """One operation of the flash: the cells change now, the time goes on from here."""
        self.operations += 1
        self.typical_us += times.typical
        self.maximum_us += times.maximum
        cut = self.operations == self.cut_at
        if not cut or self.cut_phase == AFTER:
            self.put(offset, new)
        elif self.cut_phase == INSIDE:
            self.put(offset, torn())
        if cut:
            self.cut_at = 0
            raise PowerCut
        self.tear = lambda: self.put(offset, torn())
        self.busy_until = self.machine.now + self.machine.cycles(times.maximum if self.slow else times.typical)

    def cut(self) -> None:
        """Power goes now, whatever is going on."""
        if self.tear is not None and self.busy:
            self.tear()
        self.busy_until, self.tear = FOREVER, None
