# SPDX-License-Identifier: Apache-2.0
"""Whose work an address of a program's code is: that of a generated call, the head's, or the port's."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medyate import files
from medyate.bench.phases import COMMIT, INFERENCE, TRAINING_STEP
from medyate.compiled import COMPILE
from medyate.emit.filters import DERIVED, unique_idents
from medyate.errors import ToolchainError
from medyate.ir import Graph

FORWARD, FORWARD_AGAIN = "forward", "forward_again"
BACK_INPUT, BACK_WEIGHTS, UPDATE = "back_input", "back_weights", "update"
HEAD, INPUT = "head", "input"
"""Layers that are no nodes of the graph."""


@dataclass(frozen=True)
class Work:
    """What a call does."""

    layer: str
    direction: str
    is_node: bool = True
    """Of the graph; else the layer is HEAD or INPUT, which a node may be called, too."""


SPANS = {"mdy_infer": INFERENCE, "mdy_train_step": TRAINING_STEP, "mdy_end_epoch": COMMIT}
"""What is measured: a call of one of these functions, up to its return."""
RUNTIME: Mapping[str, Work] = {
    "mdy_load": Work(INPUT, "load", is_node=False),
    "mdy_run_head": Work(HEAD, FORWARD, is_node=False),
    "mdy_head_loss": Work(HEAD, "loss", is_node=False),
    "mdy_head_backward": Work(HEAD, BACK_INPUT, is_node=False),
    "mdy_head_update": Work(HEAD, UPDATE, is_node=False),
    "mdy_head_settle": Work(HEAD, UPDATE, is_node=False),
}
"""What belongs to no node; most of it the runtime calls by itself."""
OUTSIDE = Work("", "outside", is_node=False)
"""What is no part of the work: waiting for a row of the sample, which the device's own count leaves out, too, and the
machine's stand-in for flash, for which a board takes other instructions, or none."""
PORT, LINK = "port.c", "load_row"
GENERATED = re.compile(r"forward|backward|stream_\d+")
DEFINED = re.compile(r"static void (\w+)\(mdy_t \*m")
CALL = re.compile(r"( *)(mdy_\w+)\(m, (?:(\d+), )?&?(\w+)")
INDENTED = 4
"""Of a call in forward or backward; of one in a stream twice as much; inside of mdy_again once more."""
DIRECTIONS = {
    "mdy_run_mask": "mask",
    "mdy_back_weights": BACK_WEIGHTS,
    "mdy_back_update": UPDATE,
    "mdy_back_mask": "back_mask",
    "mdy_back_copy": "back_copy",
    "mdy_back_sum": "back_sum",
}
"""Of calls that are not all of an operation's way forward or back."""


@dataclass(frozen=True)
class _Function:
    name: str
    begin: int
    end: int
    file: str
    """Of a static one; '' of others."""


@dataclass(frozen=True)
class _Call:
    work: Work
    always: bool
    """Whether every training step makes it."""


class Sites:
    """The addresses of one program."""

    def __init__(self, image: Path, source: Path, graph: Graph) -> None:
        """`source`: the generated code. Raises ToolchainError where the image does not say which line is where."""
        from elftools.common.exceptions import ELFError

        damage: tuple[type[Exception], ...] = (ELFError, *files.DAMAGE)
        try:
            functions, self._lines = _read(image, source.name)
            self._calls = dict(_calls(source.read_text(), graph))
        except damage as error:
            what = f"image and generated code do not fit each other ({files.reason(error)})."
            raise ToolchainError(what, COMPILE) from error
        if not self._lines:
            raise ToolchainError("the image has no line numbers.", COMPILE)
        self._known = [(f, _work(f)) for f in functions if _work(f) is not None]
        generated = [f for f in functions if f.file == source.name and GENERATED.fullmatch(f.name)]
        self.spans = {f.begin: SPANS[f.name] for f in functions if f.name in SPANS}
        """Phases by the addresses of the functions that are measured."""
        self.watched = [(f.begin, f.end) for f in (*generated, *(f for f, _ in self._known))]
        """Ranges of the functions whose calls are told apart."""

    def work(self, address: int) -> Work | None:
        """What the call at an address does; None: nothing that belongs to a layer."""
        known = next((work for f, work in self._known if f.begin <= address < f.end), None)
        if known is not None:
            return known
        call = self._calls.get(self._line(address))
        return None if call is None else call.work

    def check(self, addresses: Collection[int]) -> None:
        """Raises ToolchainError unless a training step and an inference made every call by one of these addresses."""
        seen = {self._line(address) for address in addresses}
        missing = [line for line, call in self._calls.items() if call.always and line not in seen]
        if missing:
            raise ToolchainError(
                f"the compiler merged calls of several layers (line {missing[0]} of the generated code).",
                "Compile with the flags that medyate writes.",
            )

    def _line(self, address: int) -> int:
        place = bisect_right(self._lines, address, key=lambda entry: entry[0]) - 1
        return self._lines[place][1] if place >= 0 else 0


def _work(function: _Function) -> Work | None:
    """Of a function that is not generated."""
    return OUTSIDE if function.file == PORT or function.name == LINK else RUNTIME.get(function.name)


def _calls(text: str, graph: Graph) -> Iterator[tuple[int, _Call]]:
    """The generated calls, by line."""
    nodes = {ident: name for name, ident in unique_idents(node.name for node in graph).items()}
    function = ""
    for number, line in enumerate(text.splitlines(), 1):
        defined = DEFINED.match(line)
        if defined is not None:
            function = defined.group(1)
        match = CALL.match(line)
        if match is None or match.group(2) == "mdy_stream":
            continue
        indent, name, order, argument = match.groups()
        depth = len(indent) // INDENTED - function.startswith("stream")
        if name in RUNTIME:
            work = RUNTIME[name]
        else:
            ident, again, _ = argument.partition(DERIVED)
            usual = BACK_INPUT if name.startswith("mdy_back") else FORWARD_AGAIN if again else FORWARD
            layer = nodes[ident] if order is None else graph.nodes[int(order)].name
            work = Work(layer, DIRECTIONS.get(name, usual))
        yield number, _Call(work, depth == 1)


def _read(image: Path, source: str) -> tuple[list[_Function], list[tuple[int, int]]]:
    """(functions, (address, line of the source; 0: none) in order) of an image."""
    from elftools.elf.elffile import ELFFile

    with image.open("rb") as file:
        elf = ELFFile(file)
        found = sorted(_lines(elf.get_dwarf_info(), source)) if elf.has_dwarf_info() else []
        return list(_functions(elf)), [(address, line) for address, _, line in found]


def _functions(elf: Any) -> Iterator[_Function]:
    file = ""
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        kind, binding = symbol["st_info"]["type"], symbol["st_info"]["bind"]
        if kind == "STT_FILE":
            file = symbol.name
        elif kind == "STT_FUNC":
            begin = symbol["st_value"] & ~1  # the lowest bit says Thumb
            yield _Function(symbol.name, begin, begin + symbol["st_size"], file if binding == "STB_LOCAL" else "")


def _lines(dwarf: Any, source: str) -> Iterator[tuple[int, int, int]]:
    """(address, place in the table, line) of the source's entries; what ends where another begins is in front."""
    for unit in dwarf.iter_CUs():
        if Path(unit.get_top_DIE().get_full_path()).name != source:
            continue
        program = dwarf.line_program_for_CU(unit)
        first = 0 if program["version"] >= 5 else 1
        names = [entry.name.decode() for entry in program["file_entry"]]
        for place, state in enumerate(entry.state for entry in program.get_entries() if entry.state is not None):
            own = not state.end_sequence and Path(names[state.file - first]).name == source
            yield state.address, -1 if state.end_sequence else place, state.line if own else 0
