# SPDX-License-Identifier: Apache-2.0
"""Emitted sources plus the runtime they need: a project that builds without medyate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from medyate.assets import assets, kernel_files
from medyate.boards import BOARDS, MACHINES, Area, Board, stand_ins
from medyate.build.manifest import replace_files
from medyate.emit.context import Data
from medyate.emit.emitter import PREFIX, emit
from medyate.emit.filters import c_comment
from medyate.plan.areas import PARTS
from medyate.plan.banks import SECTOR_BYTES, UNIT_BYTES, BankFlash, Run, emulated_flash, place_banks
from medyate.plan.plan import Plan
from medyate.plan.sectors import Reservation

COPIED = {
    "runtime_c/CMakeLists.txt": "runtime/CMakeLists.txt",
    "runtime_c/include": "runtime/include",
    "runtime_c/src": "runtime/src",
    "runtime_c/kernels": "runtime/kernels",
    "runtime_c/ports": "runtime/ports",
    "firmware/platform": "platform",
}
"""Folders and files of the assets, and where they go."""

TEMPLATES = {
    "firmware/flash_geometry.h.j2": "src/flash_geometry.h",
    "firmware/platform/platformio.ini.j2": "platformio.ini",
    "firmware/Makefile.j2": "Makefile",
    "firmware/CMakeLists.txt.j2": "CMakeLists.txt",
}

APPS = {"serial_trainer": (), "learn_by_button": ("common",), "replay": ("common",)}
"""The applications of firmware/apps, and the folders there that each shares with others."""
APPS_FOLDER = "firmware/apps"
APP = "serial_trainer"
"""The one that `run` and all other commands speak to."""


def bank_flash(plan: Plan, reserved: BankFlash | None) -> BankFlash:
    """The sectors for the banks, or what an emulated board takes. Raises BudgetError where the banks do not fit."""
    if plan.weights_in_ram:
        return BankFlash((Run(1, SECTOR_BYTES),), UNIT_BYTES)  # a target that cannot do without flash; it stays unused
    if reserved is None:
        return emulated_flash(plan.payload_bytes)
    place_banks(reserved.runs, plan.payload_bytes)
    return reserved


KEY_FILE = "src/link_key.c"


@dataclass(frozen=True)
class Placed:
    """A real board, and where code and banks lie in its flash."""

    board: Board
    banks: Reservation | None
    """None: no bank is written."""


def write_project(
    plan: Plan,
    folder: Path,
    board_ram_bytes: int | None = None,
    reserved: BankFlash | None = None,
    tell: Callable[[str], None] = lambda _: None,
    link_key: bytes | None = None,
    prefix: str = PREFIX,
    kernels: str | None = None,
    placed: Placed | None = None,
    app: str = APP,
    data: Data | None = None,
) -> BankFlash:
    """Writes sources, runtime, board files and the build descriptions into `folder`; gives the flash of the banks.

    The linker script's RAM is the board's areas; without a board `board_ram_bytes`, or the plan's limit. `reserved`:
    the sectors for the banks. `placed`: the real board that is a target beside the emulated ones. What an
    earlier call wrote there is replaced; other files stay, and where they are in the way, `tell` is told their new
    name. With a `link_key` the emulated targets and the host are no longer open.
    `prefix`: in front of what the program sees of the model. `kernels`: a family for all targets; None: their own.
    `app`: one of APPS.
    `data`: what the model's header says of it.
    Raises DataError for a prefix that C cannot have.
    """
    flash = bank_flash(plan, reserved)
    files = {f"src/{name}": text.encode() for name, text in emit(plan, prefix, data).items()}
    targets = [BOARDS[name] for name in MACHINES] + ([] if placed is None else [placed.board])
    sources = {f"firmware/{part}": part for board in targets for part in source_folders(board)}
    for place, target in {**COPIED, **sources}.items():
        files |= copies(assets() / place, target)
    if placed is not None:
        files |= copies(assets() / "firmware/boards/common", "boards/common", (".h",))
    files |= app_files(app, prefix, "app")
    files |= _descriptions(plan, flash, targets, board_ram_bytes, prefix, kernels, placed, is_open=link_key is None)
    if link_key is not None:
        files[KEY_FILE] = _key_source(link_key).encode()
    for kept in replace_files(folder, files):
        tell(f"what is not medyate's own, or was edited, has been kept as '{kept}'")
    if link_key is not None:
        (folder / KEY_FILE).chmod(0o600)
    return flash


def config(plan: Plan) -> dict[str, int]:
    """What the runtime has to be built for: the macros of mdy/config.h."""
    return {"MDY_GRAD_BITS": plan.limits.grad_bits, "MDY_ROUND_ONCE": int(plan.qgraph.rounds_once)}


def app_files(app: str, prefix: str, target: str) -> dict[str, bytes]:
    """The sources of an application of APPS, for a model's prefix, by their paths below `target`."""
    files: dict[str, bytes] = {}
    for folder in (*APPS[app], app):
        source = assets() / APPS_FOLDER / folder
        files |= copies(source, target)
        files |= {
            f"{target}/{template.stem}": render(template, {"prefix": prefix}).encode()
            for template in source.glob("*.j2")
        }
    return files


def _descriptions(
    plan: Plan,
    flash: BankFlash,
    targets: Sequence[Board],
    board_ram_bytes: int | None,
    prefix: str,
    kernels: str | None,
    placed: Placed | None,
    *,
    is_open: bool,
) -> dict[str, bytes]:
    """Of the build: what is made from the templates, by path."""
    areas = linked_areas(plan, board_ram_bytes)
    defines = [f"{name}={value}" for name, value in config(plan).items()]
    if not is_open:
        defines.append("MDY_LINK_KEY=1")
    values = {
        "ram_bytes": sum(area.bytes for area, _ in areas),
        "areas": _area_values(areas),
        "stack_bytes": plan.limits.stack_bytes,
        "defines": defines,
        "is_open": is_open,
        "prefix": prefix,
        "flash": flash,
        "targets": [_target_values(board, kernels) for board in targets],
        "host_kernels": _kernels(BOARDS["host"], kernels),
    }
    rendered = {target: render(assets() / place, values) for place, target in TEMPLATES.items()}
    for board in targets:
        own = values if placed is None or board != placed.board else {**values, **_link_values(plan, placed)}
        rendered[link_script(board)] = render(assets() / "firmware" / _link_template(board), own)
    rendered |= {f"platform/boards/{board.name}.json": _platformio_board(board) for board in targets}
    return {target: text.encode() for target, text in rendered.items()}


def _area_values(areas: Sequence[tuple[Area, tuple[str, ...]]]) -> list[dict[str, object]]:
    return [{"name": a.name, "address": a.address, "bytes": a.bytes, "holds": holds} for a, holds in areas]


def _target_values(board: Board, kernels: str | None) -> dict[str, object]:
    """What the build descriptions say of a target."""
    assert board.build is not None
    return {
        "name": board.name,
        "build": board.build,
        "is_real": board.is_real,
        "flash_address": board.flash.address if board.flash else 0,
        "defines": target_defines(board),
        "folders": source_folders(board),
        "script": link_script(board),
        "kernels": _kernels(board, kernels),
    }


def _link_values(plan: Plan, placed: Placed) -> dict[str, object]:
    """Of a real board's linker script: its areas, and where code and banks lie."""
    flash = placed.board.flash
    assert flash is not None
    end, banks = flash.address + flash.bytes, placed.banks
    behind = banks is not None and banks.code_address != flash.address
    first = end if banks is None else banks.banks[0].address
    return {
        "board": placed.board,
        "areas": _area_values(used_areas(plan)),
        "banks_address": first,
        "banks_bytes": 0 if banks is None else banks.bytes,
        "code_address": banks.code_address if banks is not None else flash.address,
        "code_end": end if behind else first,
    }


def target_defines(board: Board) -> list[str]:
    """Macros of a target: its own, and the longest times of its flash, which bound every wait of its port."""
    assert board.build is not None
    defines = list(board.build.defines)
    if board.flash is not None:
        defines.append(f"MDY_ERASE_MAX_MS={math.ceil(max(run.erase_max_ms for run in board.flash.runs))}U")
        defines.append(f"MDY_PROGRAM_MAX_US={math.ceil(board.flash.program_max_us)}U")
    return defines


def source_folders(board: Board) -> list[str]:
    """The folders of a target's port, its own first, in firmware/ and in a project."""
    assert board.build is not None
    own = f"boards/{board.name}" if board.build.port == "." else f"boards/common/{board.build.port}"
    return [own, *(f"boards/common/{folder}" for folder in board.build.shared)]


def _link_template(board: Board) -> str:
    """Beside the sources of the port: of its folders the first that has one."""
    names = [f"{folder}/link.ld.j2" for folder in source_folders(board)]
    return next(name for name in names if (assets() / "firmware" / name).is_file())


def link_script(board: Board) -> str:
    """The linker script of a target in a project: a real board has one of its own, emulated ones share theirs."""
    return f"{source_folders(board)[0]}/link.ld"


def _kernels(board: Board, family: str | None) -> list[str]:
    """The files of a target's kernels, in a project; None: of its own family."""
    assert board.build is not None
    return [f"runtime/kernels/{file}" for file in kernel_files(family or board.build.kernels)]


def _platformio_board(board: Board) -> str:
    """PlatformIO's description of a target."""
    build = board.build
    assert build is not None
    facts: dict[str, Any] = {
        "name": f"{board.title} ({board.core})",
        "vendor": "chip" if board.is_real else "QEMU",
        "url": "" if board.is_real else "https://www.qemu.org/docs/master/system/arm/mps2.html",
        "build": {
            "cpu": build.cpu,
            "float_abi": build.float_abi,
            "mcu": build.cpu,
            "f_cpu": f"{build.clock_hz}L",
            "ldscript": link_script(board),
            "extra_flags": " ".join(f"-D{define}" for define in target_defines(board)),
            **_image_values(board),
            "symbols": {name: f"0x{address:08x}" for name, address in build.symbols.items()},
        },
        "frameworks": [],
        "upload": {
            "maximum_ram_size": board.ram_bytes,
            "maximum_size": board.flash.bytes if board.flash else 4 << 20,
        },
    }
    return json.dumps(facts, indent=2) + "\n"


def _image_values(board: Board) -> dict[str, str]:
    """Where the image of a real board begins, and the family of its UF2 file."""
    if not board.is_real or board.flash is None or board.build is None:
        return {}
    family = board.build.uf2_family
    return {"flash_address": f"0x{board.flash.address:08x}", "uf2_family": f"0x{family:08x}" if family else ""}


def _key_source(key: bytes) -> str:
    digits = ", ".join(f"0x{byte:02x}" for byte in key)
    return (
        "/* SPDX-License-Identifier: Apache-2.0 */\n/* Secret: whoever has it may do what the link guards. */\n"
        f'#include "mdy/serve.h"\n\nconst uint8_t mdy_link_key[] = {{{digits}}};\n'
        "const uint32_t mdy_link_key_bytes = sizeof mdy_link_key;\n"
    )


def used_areas(plan: Plan) -> list[tuple[Area, tuple[str, ...]]]:
    """(area, parts that it holds), the one with static data and stack first."""
    area_of = plan.assignment.area_of
    holds = {area: tuple(part for part in PARTS if area_of[part] == area) for area in plan.limits.spaces}
    used = sorted((area for area, parts in holds.items() if parts), key=lambda area: "static" not in holds[area])
    return [(area, holds[area]) for area in used]


def linked_areas(plan: Plan, board_ram_bytes: int | None) -> list[tuple[Area, tuple[str, ...]]]:
    """As `used_areas`, with the areas of the emulated machine."""
    used = used_areas(plan)
    if not plan.limits.areas and board_ram_bytes is not None:
        return [(replace(used[0][0], bytes=board_ram_bytes), used[0][1])]
    return list(zip(stand_ins(tuple(area for area, _ in used)), (holds for _, holds in used), strict=True))


def copies(source: Path, target: str, kinds: tuple[str, ...] = ()) -> dict[str, bytes]:
    """A file, or a folder's files, by their new paths; `kinds`: suffixes, all but templates and records if empty."""
    if source.is_file():
        return {target: source.read_bytes()}
    return {
        f"{target}/{file.relative_to(source).as_posix()}": file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.is_file() and (file.suffix in kinds if kinds else file.suffix not in (".j2", ".pyc", ".toml"))
    }


def render(template: Path, values: dict[str, object]) -> str:
    """The text of a template."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["c_comment"] = c_comment
    return environment.from_string(template.read_text()).render(values)
