# SPDX-License-Identifier: Apache-2.0
"""How deep the stack can get: the compiler's frame sizes summed along the deepest path of the call graph.

`gcc -fcallgraph-info=su` leaves a .ci file beside every object: functions with their frames, calls, and where calls
go through a pointer. The source at that place says which member is called, and the sources say what it may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from medyate.errors import ToolchainError

LIBRARY_BYTES = 64
"""Of memcpy, memset and the 64-bit divisions, which save 12 registers at most and call nothing else."""

NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?(?:(\d+) bytes \(([a-z,]+)\))?" ?(shape : ellipse)? ?\}')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"(?: label: "([^"]*):(\d+):(\d+)")? \}')
CALL = re.compile(r"(?:\w+->)*?((?:\w+->)?\w+)\(")
INDIRECT = "__indirect_call"
POINTERS = (
    (r"op->(\w+)", "runtime/src/ops", r"\.{0} = (\w+)"),
    (r"model->(\w+)", "src", r"\.{0} = (\w+)"),
    (r"m->(\w+)", "app", r"\.{0} = (\w+)"),
    (r"m->(\w+)", "runtime/src", r"config\.{0} = (\w+)"),
    (r"(spread)->tap", "runtime/src/ops", r"\b({0}_tap)\("),
    (r"add_tap", "runtime/src/ops", r"\b(correct_tap)\("),
    (r"emu->(sync)", "boards", r"\.{0} = (\w+)"),
    (r"stages", "src", r"\b(stream_\d+)\("),
)
"""How a pointer is called; the folder and the text where the functions are named that it may hold."""
OPTIONAL = ("m->yield", "m->load", "stages")
"""Hooks that an application may leave out, and streams, which a plan may have none of."""


@dataclass
class _Function:
    frame: int = 0
    calls: set[str] = field(default_factory=set)


ENTRIES = ("mdy_reset", "main")
"""Where a program begins: a port's own start-up code, or what a vendor's calls."""


def bound(project: Path, objects: Path) -> int | None:
    """Bytes of stack from the entry on; None where the compiler left no call graph (it is not gcc).

    Raises ToolchainError where it cannot be bounded: recursion, frames of variable size, unknown pointers.
    """
    files = sorted(objects.rglob("*.ci"))
    functions: dict[str, _Function] = {}
    for file in files:
        _read(file.read_text(), project, functions)
    entry = next((name for name in ENTRIES if name in functions), None)
    return None if entry is None else _deepest(entry, functions, ())


def _read(text: str, project: Path, functions: dict[str, _Function]) -> None:
    for title, frame, kind, outside in NODE.findall(text):
        if outside:
            continue
        if "dynamic" in kind:
            raise _unbounded(f"the frame of '{title}' has no fixed size")
        functions.setdefault(title, _Function()).frame = int(frame or 0)
    for source, target, file, line, column in EDGE.findall(text):
        calls = functions.setdefault(source, _Function()).calls
        calls |= {target} if target != INDIRECT else _targets(project, file, int(line), int(column))


def _targets(project: Path, file: str, line: int, column: int) -> set[str]:
    """Names of what a call through a pointer may reach, the path in front of them where they are static."""
    path = Path(file) if Path(file).is_absolute() else project / file
    call = CALL.match(path.read_text().splitlines()[line - 1][column - 1 :])
    name = call.group(1) if call else "?"
    found: set[str] = set()
    known = False
    for pattern, folder, text in POINTERS:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        known = True
        for source in sorted((project / folder).rglob("*.c")):
            found |= set(re.findall(text.format(*match.groups()), source.read_text()))
    if known and not found and name not in OPTIONAL:
        raise _unbounded(f"nothing is found that '{name}' at {path.name}:{line} could be")
    if not known:
        raise _unbounded(f"'{name}' at {path.name}:{line} is a pointer that is not known here")
    return {f"*{one}" for one in found}


def _deepest(name: str, functions: dict[str, _Function], path: tuple[str, ...]) -> int:
    if name in path:
        raise _unbounded(f"'{name}' calls itself")
    if name.startswith("*"):  # by its bare name: there may be a static one in several files
        bare = name[1:]
        same = [title for title in functions if title == bare or title.endswith(f":{bare}")]
        return max((_deepest(title, functions, path) for title in same), default=0)
    function = functions.get(name)
    if function is None:
        return LIBRARY_BYTES
    below = max((_deepest(call, functions, (*path, name)) for call in sorted(function.calls)), default=0)
    return function.frame + below


def _unbounded(reason: str) -> ToolchainError:
    return ToolchainError(
        f"the stack cannot be bounded: {reason}.", "Please report this with the version of the compiler."
    )
