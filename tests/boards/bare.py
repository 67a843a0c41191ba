# SPDX-License-Identifier: Apache-2.0
"""Programs in tests/boards/c, built for a part, and a core that loads and stores what a test asks for."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .image import Image
from .machine import Machine
from .uart import Line

C = Path(__file__).parent / "c"
FLAGS = ("-std=gnu11", "-O1", "-ffreestanding", "-nostdlib", "-Wall", "-Wextra", "-Werror", "-mthumb")


@dataclass(frozen=True)
class Target:
    """How a program is built: core, where flash and RAM begin, where the stack ends."""

    cpu: str
    flash: int
    ram: int
    stack: int
    defines: tuple[str, ...] = ()


def build(source: str, target: Target, folder: Path, *defines: str) -> Path:
    """The ELF of tests/boards/c/<source>.c."""
    elf = folder / f"{source}.elf"
    command = ["arm-none-eabi-gcc", f"-mcpu={target.cpu}", "-mfloat-abi=hard", "-mfpu=auto", *FLAGS, f"-I{C}"]
    command += [f"-D{define}" for define in (*target.defines, *defines)]
    command += [str(C / "bare.c"), str(C / f"{source}.c"), f"-T{C / 'bare.ld'}", "-Wl,-e,reset", "-o", str(elf)]
    command += [f"-Wl,--defsym,{name}={value}" for name, value in
                (("bare_flash", target.flash), ("bare_ram", target.ram), ("bare_stack", target.stack))]  # fmt: skip
    subprocess.run(command, check=True)
    return elf


class Poker:
    """A part that runs poke.c, and what its core is asked to do."""

    LOAD, STORE, STORE_HALF, STORE_BYTE, COPY, WAIT_CLEAR, WAIT_SET, CALL, MASK, FAULTMASK, LOAD_FOUR = range(1, 12)

    def __init__(self, machine: Machine, elf: Path) -> None:
        self.machine, self.image, self.in_ram = machine, Image.read(elf), False
        machine.cells.load(self.image)
        machine.slice = 1000
        machine.power_on()
        machine.run(20_000)

    def address(self, name: str) -> int:
        return self.image.symbols[name]

    def word(self, name: str) -> int:
        return int(struct.unpack("<I", self.machine.peek(self.address(name), 4))[0])

    def ask(self, kind: int, address: int, value: int = 0, count: int = 0) -> int:
        at = self.address("ask")
        self.machine.uc.mem_write(at + 4, struct.pack("<IIII", self.in_ram, address, value & 0xFFFFFFFF, count))
        self.machine.uc.mem_write(at, struct.pack("<I", kind))
        assert self.machine.run(20_000_000_000, lambda: not self.word("ask")), "the core does not answer"
        return self.word("result")

    def load(self, address: int) -> int:
        return self.ask(self.LOAD, address)

    def store(self, address: int, value: int, size: int = 4) -> None:
        self.ask({4: self.STORE, 2: self.STORE_HALF, 1: self.STORE_BYTE}[size], address, value)

    def copy(self, address: int, first: int, words: int) -> None:
        """Stores first, first + 1 and so on."""
        self.ask(self.COPY, address, first, words)

    def wait_clear(self, address: int, bits: int, most: int = 1 << 30) -> int:
        """Loads until bits are clear; how often they were not."""
        return self.ask(self.WAIT_CLEAR, address, bits, most)

    def wait_set(self, address: int, bits: int, most: int = 1 << 30) -> int:
        """Loads until all bits are set; how often they were not."""
        return self.ask(self.WAIT_SET, address, bits, most)

    def call(self, address: int, *arguments: int) -> int:
        words = [*arguments, 0, 0, 0, 0][:4]
        self.machine.uc.mem_write(self.address("arguments"), struct.pack("<4I", *words))
        return self.ask(self.CALL, address)

    def refused(self) -> list[str]:
        """What was refused since the last call."""
        names = list(self.machine.refusals.elements())
        self.machine.refusals.clear()
        return names


class Echo:
    """A part that runs echo.c, which sends back each character plus 1, and its line."""

    LATE = "a character is lost, as the last has not been read (overrun)"

    def __init__(self, machine: Machine, line: Line, elf: Path) -> None:
        self.machine, self.line, self.image = machine, line, Image.read(elf)
        machine.cells.load(self.image)
        machine.power_on()
        assert machine.run(1_000_000, lambda: machine.peek(self.image.symbols["ready"], 1) == b"\1")

    def check_all(self) -> None:
        """Each of many characters comes back."""
        sent = bytes(range(250))
        self.line.put(sent)
        assert self.machine.run(100_000_000, lambda: len(self.line.sent) == len(sent))
        assert self.line.sent == bytes((b + 1) % 256 for b in sent)
        assert not self.machine.refusals

    def lost(self, uart: str, hold: int, count: int = 100) -> int:
        """How many of `count` characters are lost while the program does not listen for so many rounds of a loop."""
        self.machine.uc.mem_write(self.image.symbols["hold"], hold.to_bytes(4, "little"))
        self.line.put(bytes(count))
        self.machine.run(5_000_000)
        return self.machine.refusals[f"{uart}: {self.LATE}"]
