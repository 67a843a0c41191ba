# SPDX-License-Identifier: Apache-2.0
"""The bootrom of the RP2350 as the functions that this module does: RP2350 datasheet 5.4; flash: W25Q32JV data sheet.

What they are given is checked, where the bootrom itself checks nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import unicorn
import unicorn.arm_const as arm
from unicorn.unicorn_py3.unicorn import Uc

from .flash import Times

if TYPE_CHECKING:
    from .rp2350 import Rp2350

XIP, ROM = 0x10000000, 0x00000000
"""2.2.1."""
FLASH_BYTES = 4 << 20
SECTOR, BLOCK_32K, BLOCK_64K, PAGE = (
    Times(45e3, 400e3), Times(120e3, 1600e3), Times(150e3, 2000e3), Times(400, 3000),
)  # fmt: skip
"""W25Q32JV, 9.6: AC characteristics."""
INVALID_ARG, INVALID_ADDRESS, BAD_ALIGNMENT = -5, -10, -11
"""5.4.3."""


class Bootrom:
    """5.4: rom_table_lookup() and the functions for the flash."""

    LOOKUP, FIRST = 0x80, 0x100
    ARM_SECURE, DATA = 0x04, 0x40

    def __init__(self, machine: Rp2350) -> None:
        self.machine = machine
        self.functions: dict[str, Callable[[int, int, int, int], int]] = {
            "IF": self.connect_internal_flash,
            "EX": self.flash_exit_xip,
            "RE": self.flash_range_erase,
            "RP": self.flash_range_program,
            "FC": self.flash_flush_cache,
            "CX": lambda *_: 0,
            "XM": lambda *_: 0,
            "SR": lambda *_: 0,
            "RB": self.reboot,
            "FO": self.flash_op,
        }
        self.at = {self.FIRST + 4 * n: name for n, name in enumerate(self.functions)}
        self.connected = self.serial = False

    def map(self) -> None:
        """Each function is a `bx lr` that a hook sees."""
        uc = self.machine.uc
        uc.mem_map(ROM, 0x8000)
        rom = bytearray(b"\x00\xbe" * 0x4000)  # bkpt: nothing else is there
        rom[0x10:0x18] = b"Mu\x02\x02" + struct.pack("<HH", 0, self.LOOKUP | 1)
        for at in (self.LOOKUP, *self.at):
            rom[at : at + 2] = b"\x70\x47"
        uc.mem_write(ROM, bytes(rom))
        uc.mem_protect(ROM, 0x8000, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.hook_add(unicorn.UC_HOOK_CODE, self.called, None, self.LOOKUP, self.FIRST + 4 * len(self.at))

    def called(self, uc: Uc, address: int, _size: int, _data: object) -> None:
        arguments = [int(uc.reg_read(arm.UC_ARM_REG_R0 + n)) for n in range(4)]
        if address == self.LOOKUP:
            uc.reg_write(arm.UC_ARM_REG_R0, self.lookup(arguments[0], arguments[1]))
        elif address in self.at:
            function = self.functions[self.at[address]]
            uc.reg_write(arm.UC_ARM_REG_R0, self.machine.guarded(lambda: function(*arguments)))

    def lookup(self, code: int, mask: int) -> int:
        """5.4.1. 0: there is no such function."""
        name = bytes((code & 0xFF, code >> 8 & 0xFF)).decode("latin1")
        at = next((at for at, known in self.at.items() if known == name), 0)
        if not at or not mask & self.ARM_SECURE:
            self.machine.refuse(f"bootrom: there is no '{name}' with flags {mask:#x}")
            return 0
        return at | 1

    def refuse(self, what: str) -> int:
        self.machine.refuse(f"bootrom: {what}")
        return 0

    def connect_internal_flash(self, *_: int) -> int:
        self.connected = True
        return 0

    def flash_exit_xip(self, *_: int) -> int:
        if not self.connected:
            return self.refuse("flash_exit_xip before connect_internal_flash")
        self.serial = True
        return 0

    def flash_flush_cache(self, *_: int) -> int:
        self.machine.flush()
        return 0

    def reboot(self, *_: int) -> int:
        self.machine.reset_part()
        return 0

    def may_run(self, function: str) -> bool:
        """The flash is in its serial state, and no handler will run from it meanwhile (5.4.8.10)."""
        if not self.serial:
            self.refuse(f"{function} before connect_internal_flash and flash_exit_xip")
            return False
        handler = self.machine.handler_in_flash()
        if handler is not None:
            self.refuse(f"{function} while exception {handler} may be taken, which needs the flash")
        return True

    def flash_range_erase(self, address: int, count: int, block_size: int, block_command: int) -> int:
        """5.4.8.10."""
        cells = self.machine.cells
        if not self.may_run("flash_range_erase"):
            return 0
        if address % 4096 or count % 4096:
            return self.refuse("flash_range_erase: not in sectors of 4096 bytes")
        if address + count > FLASH_BYTES:
            return self.refuse("flash_range_erase: past the end of the flash")
        larger = {(1 << 16, 0xD8): BLOCK_64K, (1 << 15, 0x52): BLOCK_32K}.get((block_size, block_command & 0xFF))
        if larger is None and block_size & block_size - 1 | (block_size != 0 and block_size < 4096):
            return self.refuse(f"flash_range_erase: a block of {block_size} bytes")
        end = address + count
        while address < end:
            if larger is not None and address % block_size == 0 and address + block_size <= end:
                share = block_size // 4096  # one command: its time is shared by its sectors
                times = Times(larger.typical / share, larger.maximum / share)
            else:
                share, times = 1, SECTOR
            for _ in range(share):
                cells.erase(address // 4096, times)
                cells.finish()
                address += 4096
        return 0

    def flash_range_program(self, address: int, data: int, count: int, _unused: int) -> int:
        """5.4.8.11."""
        cells = self.machine.cells
        if not self.may_run("flash_range_program"):
            return 0
        if address % 256 or count % 256:
            return self.refuse("flash_range_program: not in pages of 256 bytes")
        if address + count > FLASH_BYTES:
            return self.refuse("flash_range_program: past the end of the flash")
        if XIP <= data < XIP + 0x10000000:
            return self.refuse("flash_range_program: from the flash, which cannot be read meanwhile")
        for start in range(address, address + count, 256):
            page = self.machine.peek(data + start - address, 256)
            if cells.sets_bits(start, page):
                self.refuse("bits go from 0 to 1 without an erase")
            cells.program(start, page, PAGE)
            cells.finish()
        return 0

    def flash_op(self, flags: int, address: int, count: int, data: int) -> int:
        """5.4.8.9: checks what it is given, then is as the two above; a secure caller, no partition table.

        Addresses are those of XIP with and without translation, which is the identity after a reset (12.14.4).
        """
        name = {0: "erase", 1: "program", 2: "read"}.get(flags >> 16)
        if name is None or flags & 0xFCFE or not flags >> 8 & 3:
            return self.failed(INVALID_ARG, f"flags {flags:#x}")
        unit = {"erase": 4096, "program": 256, "read": 1}[name]
        offset = address - XIP
        if not 0 <= offset <= offset + count <= FLASH_BYTES:
            return self.failed(INVALID_ADDRESS, f"{name} of {count} bytes at {address:#010x}")
        if address % unit or count % unit:
            return self.failed(BAD_ALIGNMENT, f"{name} not in units of {unit} bytes")
        if name == "read":
            self.machine.uc.mem_write(data, self.machine.cells.get(offset, count))
            return 0
        return (
            self.flash_range_erase(offset, count, 0, 0)
            if name == "erase"
            else self.flash_range_program(offset, data, count, 0)
        )

    def failed(self, code: int, what: str) -> int:
        self.refuse(f"flash_op: {what}")
        return code & 0xFFFFFFFF
