# SPDX-License-Identifier: Apache-2.0
"""How deep the stack can get: the compiler's frame sizes summed along the deepest path of the call graph.

`gcc -fcallgraph-info=su` leaves a .ci file beside every object: functions with their frames, calls, and where calls
go through a pointer. The source at that place says which member is called, and the sources say what it may be.
An interrupt's handler, `mdy_isr_NAME` of a port, is added with the frame that the processor pushes: they have one
priority, so that one runs at a time. Handlers of the application are not in the bound.
What neither tells is an error, unless its bytes are known: of the C library from `LIBRARY`, of anything else from a
comment in the sources of the application or the port, `/* stack bytes of NAME: 256 */`, NAME a function or a pointer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from medyate.errors import ToolchainError

LIBRARY: Mapping[str, int] = {
    **dict.fromkeys(("memcpy", "memset", "memmove", "memcmp", "strlen"), 32),
    **dict.fromkeys(("__aeabi_ldivmod", "__aeabi_uldivmod"), 64),
}
"""Most that functions of newlib and libgcc take, with all that they call: what they push and reserve in the libraries
of gcc 12.2 for Cortex-M4, M7 and M55, rounded up. `tests/unit/test_stack.py` measures the installed ones."""

NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?(?:(\d+) bytes \(([a-z,]+)\))?" ?(shape : ellipse)? ?\}')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"(?: label: "([^"]*):(\d+):(\d+)")? \}')
CALL = re.compile(r"(?:\w+->)*?((?:\w+->)?\w+)\(")
FILE = re.compile(r"\\n([^\":\\]+):\d+:\d+")
SUFFIXES = (".c", ".h", ".S", ".cc", ".cpp", ".hpp", ".ino")
DECLARED = re.compile(r"stack bytes of (\w+): (\d+)")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
INDIRECT = "__indirect_call"
EVERYWHERE = ("app", "src", "boards", "runtime/src", "runtime/ports")
BOARDS, KERNELS = "boards", "runtime/kernels"
"""Ports and families, of which a program has one: only what was compiled counts."""
SET = r"(?:\.|->)\s*{0}\s*=(?!=)\s*([^;,}}]+)"
"""A member that is given a value, in an initialiser or an assignment."""
TABLE = r"\s+\w+\s*=\s*\{{[^}}]*?\.\s*{0}\s*=\s*([^;,}}]+)"
OPTIMIZER, HARDWARE = rf"\bmdy_optimizer_t{TABLE}", rf"\bapp_hardware_t{TABLE}"
"""A member of a table of one type: others have members of these names, too."""
POINTERS = (
    (r"op->(\w+)", (KERNELS,), SET),
    (r"model->(\w+)", ("src",), SET),
    (r"policy->(\w+)", ("runtime/src",), SET),
    (r"optimizer->(\w+)", ("runtime/src", "app"), OPTIMIZER),
    (r"u->(pass)", ("runtime/src",), SET),
    (r"m->(yield|load)", EVERYWHERE, SET),
    (r"(spread)->tap", ("runtime/src/ops",), r"\b({0}_tap)\("),
    (r"add_tap", ("runtime/src/ops",), r"\b(correct_tap)\("),
    (r"emu->(sync)", EVERYWHERE, SET),
    (r"flash->(\w+)", EVERYWHERE, SET),
    (r"port->(\w+)", EVERYWHERE, SET),
    (r"hardware->(\w+)", ("app",), HARDWARE),
    (r"stages", ("src",), r"\b(stream_\d+)\("),
)
"""How a pointer is called; the folders and the text where what it may hold is named."""
OPTIONAL = ("m->yield", "m->load", "stages")
"""Hooks that an application may leave out, and streams, which a plan may have none of."""
UNNAMED = re.compile(
    r"\b((?:mdy_(?:config|flash|port|optimizer)|app_hardware)_t)\b(?:\s+\w+\s*(?:\[[^\]]*\]\s*)*=\s*|\s*\)\s*)\{[\s{]*(?!\s*(?:\.|0\s*\}|\[|\}|\{))"
)
"""A configuration, port, optimiser or hardware whose members are set by position."""


@dataclass
class _Function:
    frame: int | None = None
    calls: set[str] = field(default_factory=set)


HANDLER = re.compile(r"mdy_isr_\w+")
EXCEPTION_BYTES = 40
"""Eight words and what aligns them to 8: Armv7-M ARM, B1.5.6. With floating point, which no image uses, it is more."""

ENTRIES = ("mdy_start", "mdy_reset", "main")
"""Where a program begins: a port's own start-up code, or what a vendor's calls."""


def bound(project: Path, objects: Path) -> int | None:
    """Bytes of stack from the entry on; None where the compiler left no call graph (it is not gcc).

    Raises ToolchainError where it cannot be bounded: recursion, frames of variable size, unknown pointers, functions
    of which nothing is known.
    """
    files = sorted(objects.rglob("*.ci"))
    program = _Program(project, [str(file.with_suffix("")) for file in files])
    graphs = [file.read_text() for file in files]
    for text in graphs:
        program.read_functions(text)
    for text in graphs:
        program.read_calls(text)
    entry = next((name for name in ENTRIES if name in program.functions), None)
    if entry is None:
        return None
    handlers = [EXCEPTION_BYTES + program.deepest(name, ()) for name in program.functions if HANDLER.fullmatch(name)]
    return program.deepest(entry, ()) + max(handlers, default=0)


class _Program:
    """Call graphs of all objects, and the sources behind them."""

    def __init__(self, project: Path, objects: Sequence[str]) -> None:
        self.project = project
        self.objects = objects
        """Of which there are call graphs, by their paths without suffix."""
        self.functions: dict[str, _Function] = {}
        self.compiled: set[Path] = set()
        """Files that hold functions."""

    @cached_property
    def sources(self) -> dict[str, dict[str, str]]:
        """Text of every source file by folder; what an application has elsewhere counts as its own."""
        paths = {
            folder: {f for f in (self.project / folder).rglob("*") if f.suffix in SUFFIXES}
            for folder in (*EVERYWHERE, "runtime/src/ops")
        }
        if any(map(self._is_compiled, paths[BOARDS])):
            paths[BOARDS] = {f for f in paths[BOARDS] if f.suffix == ".h" or self._is_compiled(f)}
        paths[KERNELS] = {f for f in (self.project / KERNELS).rglob("*.c") if self._is_compiled(f)}
        paths["app"] |= self.compiled - set().union(*paths.values())
        return {folder: {str(f): f.read_text(errors="replace") for f in sorted(paths[folder])} for folder in paths}

    def _is_compiled(self, source: Path) -> bool:
        """Whether there is an object of a source: in some folder, under its own path in the project."""
        own = "/" + source.relative_to(self.project).with_suffix("").as_posix()
        return any(name.endswith((own, f"{own}.c")) for name in self.objects)

    @cached_property
    def declared(self) -> dict[str, int]:
        """Bytes that the application or the port says; the most where it says several."""
        found: dict[str, int] = {}
        for folder in EVERYWHERE:
            for text in self.sources[folder].values():
                for name, count in DECLARED.findall(text):
                    found[name] = max(found.get(name, 0), int(count))
        return found

    def read_functions(self, text: str) -> None:
        """Those of one call graph."""
        own = (self.project / name for name in FILE.findall(text) if not Path(name).is_absolute())
        self.compiled |= {path for path in own if path.is_file() and path.suffix in SUFFIXES}
        for title, frame, kind, outside in NODE.findall(text):
            if outside:
                continue
            if "dynamic" in kind:
                raise _unbounded(f"the frame of '{title}' has no fixed size")
            function = self.functions.setdefault(title, _Function())
            if frame:
                function.frame = max(int(frame), function.frame or 0)

    def read_calls(self, text: str) -> None:
        """What the functions of one call graph call."""
        for source, target, file, line, column in EDGE.findall(text):
            calls = self.functions.setdefault(source, _Function()).calls
            calls |= {target} if target != INDIRECT else self._targets(file, int(line or 0), int(column or 0))

    def _targets(self, file: str, line: int, column: int) -> set[str]:
        """What a call through a pointer may reach, '*' in front."""
        path = Path(file) if Path(file).is_absolute() else self.project / file
        lines = path.read_text().splitlines() if path.is_file() else []
        call = CALL.match(lines[line - 1][column - 1 :]) if 0 < line <= len(lines) else None
        name = call.group(1) if call else "?"
        pointer = name.rpartition("->")[2]
        if pointer in self.declared:
            return {f"*{pointer}"}
        for pattern, folders, text in POINTERS:
            match = re.fullmatch(pattern, name)
            if match is None:
                continue
            found = self._named(text.format(*match.groups()), folders, pointer)
            if not found and name not in OPTIONAL:
                raise _unbounded(f"no function is found that '{name}' at {path.name}:{line} could call", pointer)
            return {f"*{one}" for one in found}
        raise _unbounded(f"'{name}' at {path.name}:{line} is a pointer that is not known here", pointer)

    def _named(self, pattern: str, folders: tuple[str, ...], member: str) -> set[str]:
        """Functions that the sources name."""
        found = set()
        for folder in folders:
            for file, text in self.sources[folder].items():
                code = COMMENT.sub(" ", text)
                if unnamed := UNNAMED.search(code):
                    raise _unbounded(
                        f"an {unnamed.group(1)} in '{Path(file).name}' is set by position, not by names", member
                    )
                for value in re.findall(pattern, code):
                    plain = re.sub(r"^(?:\([^()]*\)\s*)*&?\s*", "", value.strip())
                    if plain in ("NULL", "0", "") or re.search(rf"(?:\.|->)\s*{member}$", plain):
                        continue  # none, or handed on
                    if not re.fullmatch(r"\w+", plain):
                        raise _unbounded(
                            f"'{plain}', which '{member}' may be in '{Path(file).name}', is no function", member
                        )
                    found.add(plain)
        return found

    def _titles(self, name: str) -> list[str]:
        """Of functions by that name, whatever file they are in."""
        return [title for title in self.functions if title == name or title.endswith(f":{name}")]

    def deepest(self, name: str, path: tuple[str, ...]) -> int:
        """Bytes from a function on; `path`: what calls it."""
        if name in path:
            raise _unbounded(f"'{name}' calls itself")
        if name.startswith("*"):  # by its bare name: there may be a static one in several files
            bare = name[1:]
            return max(self.deepest(title, path) for title in self._titles(bare) or [bare])
        if name not in self.functions and len(weak := self._titles(name)) == 1:
            return self.deepest(weak[0], path)  # gcc names a weak function by its file, too
        function = self.functions.get(name)
        below = 0
        if function is not None:
            below = max((self.deepest(call, (*path, name)) for call in sorted(function.calls)), default=0)
            if function.frame is not None:
                return function.frame + below
        own = self.declared.get(name, LIBRARY.get(name))
        if own is None:
            caller = f", which '{path[-1]}' calls" if path else ""
            raise _unbounded(f"nothing is known of '{name}'{caller}", name)
        return own + below


def _unbounded(reason: str, name: str = "") -> ToolchainError:
    remedy = "Please report this with the version of the compiler."
    if name:
        remedy = f"State its stack in a comment of your application or port: /* stack bytes of {name}: 256 */"
    return ToolchainError(f"the stack cannot be bounded: {reason}.", remedy)
