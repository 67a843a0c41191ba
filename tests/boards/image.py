# SPDX-License-Identifier: Apache-2.0
"""An ELF file as a part takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection


@dataclass(frozen=True)
class Image:
    """What an ELF file puts into flash, and where its symbols are."""

    segments: tuple[tuple[int, bytes], ...]
    symbols: dict[str, int]

    @staticmethod
    def read(path: Path) -> Image:
        with path.open("rb") as file:
            elf = ELFFile(file)
            loads = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_filesz"]]
            segments = tuple((int(s["p_paddr"]), bytes(s.data())) for s in loads)
            table = elf.get_section_by_name(".symtab")
            assert isinstance(table, SymbolTableSection)
            names = {s.name: int(s["st_value"]) for s in table.iter_symbols() if s.name}
        return Image(segments, names)
