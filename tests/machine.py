# SPDX-License-Identifier: Apache-2.0
"""A compiled network over an emulated flash, in this process: every operation can be cut or fail."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import clibrary
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES
from medyate.run.session import BANK_STATES, Found
from medyate.run.train import Compiled
from shared_files import Samples

BEFORE, INSIDE, AFTER = range(3)
IGNORED, WRONG = range(2)
OK, FLASH, DAMAGED = 0, -4, -10
"""Statuses."""
NO_SECTOR = 0xFFFFFFFF


@dataclass(frozen=True)
class Identity:
    """Which generation stands, and CRCs of what it holds."""

    generation: int
    epochs: int
    steps: int
    state: int
    weights: int


class Faults(ctypes.Structure):
    """What a call of the runtime meets; the fields of runtime_c/ports/emu/flash_emu.h, 0: nothing."""

    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in (
            *("cut_at", "cut_phase", "fail_at", "fail_count", "lie_at", "lie_count", "lie", "dead_address"),
            *("dead_bytes", "read_fail_at", "read_fail_count", "read_lie_at", "flip_at", "flip_address", "flip_bit"),
            "seed",
        )
    )


@dataclass(frozen=True)
class Counts:
    """Flash operations (sector erases, unit programs), reads, and calls of all kinds."""

    operations: int
    reads: int
    calls: int


class Arrays(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("generation", "epochs", "steps", "state_bytes", "weight_bytes", "bank")),
        ("state", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    )


class Machine:
    """One compiled network; its flash is factory-fresh."""

    def __init__(self, compiled: Compiled, folder: Path) -> None:
        self.compiled = compiled
        project = compiled.folder / "project"
        library = folder / "cut_probe.so"
        sources = [f for f in (project / "runtime" / "src").rglob("*.c") if f.name not in ("link.c", "serve.c")]
        sources += (project / "runtime" / "kernels" / "ref").glob("*.c")
        sources += [*(project / "src").glob("*.c"), clibrary.RUNTIME / "ports" / "emu" / "flash_emu.c"]
        command = [os.environ.get("CC", "cc"), "-std=c11", "-O2", *clibrary.WARNINGS, "-shared", "-fPIC"]
        command += [f"-I{project / 'src'}", f"-I{project / 'runtime' / 'include'}"]
        command += [f"-I{clibrary.RUNTIME / 'ports' / 'emu'}", str(clibrary.HERE / "c" / "cut_probe.c")]
        subprocess.run([*command, *map(str, sources), "-o", str(library)], check=True)
        self.lib: Any = ctypes.CDLL(str(library))
        self.lib.cut_probe_flash.restype = ctypes.c_void_p
        self.lib.cut_probe_fault.restype = ctypes.c_uint32
        self.lib.cut_probe_format()

    def format(self) -> None:
        """A new flash."""
        self.lib.cut_probe_format()

    def boot(self, *, fresh: bool = False, bad: tuple[int, int] = (0, 0)) -> Identity:
        """Power comes back; `bad`: (address, bytes) that cannot be read."""
        assert self.start(fresh=fresh, bad=bad) == 0
        return self.identity()

    def start(self, *, fresh: bool = False, bad: tuple[int, int] = (0, 0)) -> int:
        """The status of a boot."""
        return int(self.lib.cut_probe_boot(int(fresh), *map(ctypes.c_uint32, bad)))

    def _arrays(self) -> Arrays:
        a = Arrays()
        self.lib.cut_probe_arrays(ctypes.byref(a))
        return a

    def identity(self) -> Identity:
        """What the running network holds."""
        a = self._arrays()
        state, weights = (
            zlib.crc32(ctypes.string_at(at, count)) if at else 0
            for at, count in ((a.state, a.state_bytes), (a.weights, a.weight_bytes))
        )
        return Identity(a.generation, a.epochs, a.steps, state, weights)

    def found(self) -> tuple[Found, Found]:
        """What the last boot found in the banks."""
        words = (ctypes.c_uint32 * 4)()
        result = []
        for bank in (0, 1):
            self.lib.cut_probe_found(bank, words)
            result.append(Found(BANK_STATES[words[0]], *words[1:]))
        return result[0], result[1]

    def bank(self, bank: int) -> tuple[int, int]:
        """(address, bytes)."""
        address, size = ctypes.c_uint32(), ctypes.c_uint32()
        self.lib.cut_probe_bank(bank, ctypes.byref(address), ctypes.byref(size))
        return address.value, size.value

    @property
    def bank_in_use(self) -> int:
        """0 or 1."""
        return int(self._arrays().bank)

    def header(self, bank: int) -> bytes:
        """As it lies in flash."""
        return self.read(self.bank(bank)[0], BANK_HEADER_BYTES)

    def payload(self, bank: int) -> bytes:
        """As it lies in flash."""
        a = self._arrays()
        return self.read(self.bank(bank)[0] + BANK_HEADER_BYTES, BANK_BODY_BYTES + a.state_bytes + a.weight_bytes)

    def read(self, address: int, count: int) -> bytes:
        """Bytes of the flash."""
        return ctypes.string_at(self.lib.cut_probe_flash() + address, count)

    def flip(self, address: int, bit: int) -> None:
        """Turns one bit over, as time does."""
        cell = ctypes.c_uint8.from_address(self.lib.cut_probe_flash() + address)
        cell.value ^= 1 << bit

    def sector_erases(self) -> list[int]:
        """Of each sector, over the life of the image."""
        return [int(self.lib.cut_probe_erases(sector)) for sector in range(self.compiled.flash.sectors)]

    def train(self, samples: Samples, part: slice | Sequence[int]) -> None:
        """One step per sample."""
        for x, y in zip(samples.x[part], samples.y[part], strict=True):
            assert self.lib.cut_probe_step(ctypes.c_void_p(np.ascontiguousarray(x).ctypes.data), int(y)) == 0

    def end_epoch(self, at: int = 0, phase: int = 0, seed: int = 0) -> tuple[bool, int]:
        """(committed, operations begun), the power cut at operation `at`."""
        operations = ctypes.c_uint32()
        status = self.lib.cut_probe_end_epoch(ctypes.c_uint32(at), phase, seed, ctypes.byref(operations))
        return status == 0, operations.value

    def arm(self, **faults: int) -> None:
        """What the next calls meet; see Faults."""
        self.lib.cut_probe_arm(ctypes.byref(Faults(**faults)))

    def commit(self, **faults: int) -> int:
        """Ends the epoch under faults; its status."""
        self.arm(**faults)
        return int(self.lib.cut_probe_commit())

    def reset(self, *, wipe: bool = False, **faults: int) -> int:
        """A factory reset under faults; its status."""
        self.arm(**faults)
        return int(self.lib.cut_probe_reset(int(wipe)))

    def start_under(self, **faults: int) -> int:
        """A boot under faults; its status."""
        self.arm(**faults)
        return int(self.lib.cut_probe_start())

    def counts(self) -> Counts:
        """Since the last boot or arming."""
        words = (ctypes.c_uint32 * 3)()
        self.lib.cut_probe_counts(words)
        return Counts(*words)

    @property
    def fault(self) -> int | None:
        """The sector that refused the last commit or reset."""
        sector = int(self.lib.cut_probe_fault())
        return None if sector == NO_SECTOR else sector

    def rewrite(
        self,
        bank: int,
        words: dict[int, int] | None = None,
        state: dict[int, bytes] | None = None,
        settings: dict[int, int] | None = None,
        body_bytes: int = BANK_BODY_BYTES,
    ) -> None:
        """Other values in a bank, and checksums that fit.

        In the header by word, in state and weights by offset, in the settings by word; these get that length, by zeros
        that are added or by what is cut off.
        """
        (address, size), payload = self.bank(bank), bytearray(self.payload(bank))
        for offset, values in (state or {}).items():
            payload[BANK_BODY_BYTES + offset : BANK_BODY_BYTES + offset + len(values)] = values
        body = bytearray(bytes(payload[:BANK_BODY_BYTES]).ljust(body_bytes, b"\0")[:body_bytes])
        for word, value in (settings or {}).items():
            struct.pack_into("<I", body, 4 * word, value)
        payload[:BANK_BODY_BYTES] = body
        header = bytearray(self.header(bank))
        for word, value in {4: len(payload), 5: zlib.crc32(payload), 7: len(body), **(words or {})}.items():
            struct.pack_into("<I", header, 4 * word, value)
        struct.pack_into("<I", header, 60, zlib.crc32(header[:60]))
        content = bytes(header + payload)
        assert len(content) <= size
        (ctypes.c_uint8 * len(content)).from_address(self.lib.cut_probe_flash() + address)[:] = content

    def end_epoch_failing(self, at: int, count: int, seed: int = 0) -> tuple[bool, int]:
        """(committed, operations begun); `count` operations from `at` on fail, the power stays."""
        operations = ctypes.c_uint32()
        status = self.lib.cut_probe_end_epoch_failing(
            ctypes.c_uint32(at), ctypes.c_uint32(count), seed, ctypes.byref(operations)
        )
        return status == 0, operations.value
