# SPDX-License-Identifier: Apache-2.0
"""Emitted sources plus the runtime they need: a project that builds without medyate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2

from medyate import __version__
from medyate.assets import PORTABLE, assets, kernel_files
from medyate.boards import BOARDS, MACHINES, Area, Board, stand_ins
from medyate.build.manifest import replace_files
from medyate.emit.emitter import PREFIX, emit
from medyate.emit.filters import c_comment
from medyate.plan.areas import PARTS
from medyate.plan.banks import SECTOR_BYTES, UNIT_BYTES, BankFlash, Run, emulated_flash, place_banks
from medyate.plan.plan import Plan

COPIED = {
    "runtime_c/CMakeLists.txt": "runtime/CMakeLists.txt",
    "runtime_c/include": "runtime/include",
    "runtime_c/src": "runtime/src",
    "runtime_c/kernels": "runtime/kernels",
    "runtime_c/ports": "runtime/ports",
    "firmware/boards": "boards",
    "firmware/platform": "platform",
}
"""Folders and files of the assets, and where they go."""

TEMPLATES = {
    "firmware/apps/finetune/main.c.j2": "app/main.c",
    "firmware/flash_geometry.h.j2": "src/flash_geometry.h",
    "firmware/platform/platformio.ini.j2": "platformio.ini",
    "firmware/Makefile.j2": "Makefile",
    "firmware/CMakeLists.txt.j2": "CMakeLists.txt",
}


def bank_flash(plan: Plan, reserved: BankFlash | None) -> BankFlash:
    """The sectors for the banks, or what an emulated board takes. Raises BudgetError where the banks do not fit."""
    if plan.weights_in_ram:
        return BankFlash((Run(1, SECTOR_BYTES),), UNIT_BYTES)  # a target that cannot do without flash; it stays unused
    if reserved is None:
        return emulated_flash(plan.payload_bytes)
    place_banks(reserved.runs, plan.payload_bytes)
    return reserved


KEY_FILE = "src/link_key.c"


def write_project(
    plan: Plan,
    folder: Path,
    board_ram_bytes: int | None = None,
    reserved: BankFlash | None = None,
    tell: Callable[[str], None] = lambda _: None,
    link_key: bytes | None = None,
    prefix: str = PREFIX,
    kernels: str | None = None,
) -> BankFlash:
    """Writes sources, runtime, board files and the build descriptions into `folder`; gives the flash of the banks.

    The linker script's RAM is the board's areas; without a board `board_ram_bytes`, or the plan's limit. `reserved`:
    the sectors for the banks. What an earlier call wrote there is replaced; other files stay, and where they are in the
    way, `tell` is told their new name. With a `link_key` the emulated targets and the host are no longer open.
    `prefix`: in front of what the program sees of the model. `kernels`: a family for all targets; None: their own.
    Raises DataError for a prefix that C cannot have.
    """
    flash = bank_flash(plan, reserved)
    files = {f"src/{name}": text.encode() for name, text in emit(plan, prefix).items()}
    for place, target in COPIED.items():
        files |= _copies(assets() / place, target)
    files |= _descriptions(plan, flash, board_ram_bytes, prefix, kernels, is_open=link_key is None)
    if link_key is not None:
        files[KEY_FILE] = _key_source(link_key).encode()
    for kept in replace_files(folder, files):
        tell(f"what is not medyate's own, or was edited, has been kept as '{kept}'")
    if link_key is not None:
        (folder / KEY_FILE).chmod(0o600)
    return flash


def _descriptions(
    plan: Plan, flash: BankFlash, board_ram_bytes: int | None, prefix: str, kernels: str | None, *, is_open: bool
) -> dict[str, bytes]:
    """Of the build: what is made from the templates, by path."""
    areas, emulated = linked_areas(plan, board_ram_bytes), [BOARDS[name] for name in MACHINES]
    defines = [
        f"MDY_GRAD_BITS={plan.limits.grad_bits}",
        f"MDY_ROUND_ONCE={int(plan.qgraph.rounds_once)}",
        *(() if is_open else ("MDY_LINK_KEY=1",)),
    ]
    values = {
        "ram_bytes": sum(area.bytes for area, _ in areas),
        "areas": [{"name": a.name, "address": a.address, "bytes": a.bytes, "holds": holds} for a, holds in areas],
        "stack_bytes": plan.limits.stack_bytes,
        "defines": defines,
        "is_open": is_open,
        "prefix": prefix,
        "flash": flash,
        "targets": [
            {"name": b.name, "build": b.build, "sources": port_folder(b), "kernels": _kernels(b, kernels)}
            for b in emulated
        ],
        "host_kernels": _kernels(BOARDS["host"], kernels),
    }
    scripts = {f"firmware/{port_folder(board)}/link.ld.j2": f"{port_folder(board)}/link.ld" for board in emulated}
    rendered = {target: _render(assets() / place, values) for place, target in {**TEMPLATES, **scripts}.items()}
    rendered |= {f"platform/boards/{board.name}.json": _platformio_board(board) for board in emulated}
    rendered["runtime/library.json"] = _platformio_library(defines)
    return {target: text.encode() for target, text in rendered.items()}


def port_folder(board: Board) -> str:
    """The folder of a target's port, in firmware/ and in a project."""
    assert board.build is not None
    return f"boards/{board.name}" if board.build.port == "." else f"boards/common/{board.build.port}"


def _kernels(board: Board, family: str | None) -> list[str]:
    """The files of a target's kernels, in a project; None: of its own family."""
    assert board.build is not None
    return [f"runtime/kernels/{file}" for file in kernel_files(family or board.build.kernels)]


def _platformio_board(board: Board) -> str:
    """PlatformIO's description of a target."""
    build = board.build
    assert build is not None
    facts = {
        "name": f"{board.title} ({board.core})",
        "vendor": "QEMU",
        "url": "https://www.qemu.org/docs/master/system/arm/mps2.html",
        "build": {
            "cpu": build.cpu,
            "mcu": build.cpu,
            "f_cpu": f"{build.clock_hz}L",
            "ldscript": f"{port_folder(board)}/link.ld",
            "extra_flags": " ".join(f"-D{define}" for define in build.defines),
            "symbols": {name: f"0x{address:08x}" for name, address in build.symbols.items()},
        },
        "frameworks": [],
        "upload": {"maximum_ram_size": board.ram_bytes, "maximum_size": 4 << 20},
    }
    return json.dumps(facts, indent=2) + "\n"


def _platformio_library(defines: Sequence[str]) -> str:
    """PlatformIO's description of the runtime, for those who put the folder into their project's lib/."""
    facts = {
        "name": "medyate-runtime",
        "version": __version__,
        "description": "Fine-tunes a network on the microcontroller; the model comes from `medyate compile`.",
        "license": "Apache-2.0",
        "headers": ["mdy/mdy.h"],
        "build": {
            "srcDir": ".",
            "includeDir": "include",
            "srcFilter": ["-<*>", "+<src/>", f"+<kernels/{PORTABLE}/>"],
            "flags": [f"-D{define}" for define in defines],
        },
    }
    return json.dumps(facts, indent=2) + "\n"


def _key_source(key: bytes) -> str:
    digits = ", ".join(f"0x{byte:02x}" for byte in key)
    return (
        "/* SPDX-License-Identifier: Apache-2.0 */\n/* Secret: whoever has it may do what the link guards. */\n"
        f'#include "mdy/serve.h"\n\nconst uint8_t mdy_link_key[] = {{{digits}}};\n'
        "const uint32_t mdy_link_key_bytes = sizeof mdy_link_key;\n"
    )


def linked_areas(plan: Plan, board_ram_bytes: int | None) -> list[tuple[Area, tuple[str, ...]]]:
    """(area of the emulated machine, parts that it holds), the one with static data and stack first."""
    area_of = plan.assignment.area_of
    holds = {area: tuple(part for part in PARTS if area_of[part] == area) for area in plan.limits.spaces}
    used = sorted((area for area, parts in holds.items() if parts), key=lambda area: "static" not in holds[area])
    if not plan.limits.areas and board_ram_bytes is not None:
        return [(replace(used[0], bytes=board_ram_bytes), holds[used[0]])]
    return list(zip(stand_ins(tuple(used)), (holds[area] for area in used), strict=True))


def _copies(source: Path, target: str) -> dict[str, bytes]:
    """A file, or a folder's files, by their new paths."""
    if source.is_file():
        return {target: source.read_bytes()}
    return {
        f"{target}/{file.relative_to(source).as_posix()}": file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.is_file() and file.suffix not in (".j2", ".pyc", ".toml")
    }


def _render(template: Path, values: dict[str, object]) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["c_comment"] = c_comment
    return environment.from_string(template.read_text()).render(values)
