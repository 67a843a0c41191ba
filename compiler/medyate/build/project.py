# SPDX-License-Identifier: Apache-2.0
"""Emitted sources plus the runtime they need: a project that builds without medyate."""

from __future__ import annotations

import shutil
from pathlib import Path

import jinja2

from medyate.artefact import write_bytes, write_text
from medyate.emit.emitter import emit
from medyate.plan.banks import SECTOR_BYTES, UNIT_BYTES, Flash, Run, emulated_flash, place_banks
from medyate.plan.plan import Plan

BOARDS = {
    "host": "this machine, the same C natively",
    "qemu-m4": "QEMU mps2-an386, Cortex-M4",
    "qemu-m7": "QEMU mps2-an500, Cortex-M7",
    "qemu-m55": "QEMU mps3-an547, Cortex-M55",
}


def assets() -> Path:
    """The folder that holds runtime_c/ and firmware/: inside the wheel, or the repository."""
    packed = Path(__file__).resolve().parent.parent / "_assets"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[3]


def bank_flash(plan: Plan, reserved: Flash | None) -> Flash:
    """The sectors for the banks, or what an emulated board takes. Raises BudgetError where the banks do not fit."""
    if plan.weights_in_ram:
        return Flash((Run(1, SECTOR_BYTES),), UNIT_BYTES)  # a target that cannot do without flash; it stays unused
    if reserved is None:
        return emulated_flash(plan.payload_bytes)
    place_banks(reserved.runs, plan.payload_bytes)
    return reserved


def write_project(plan: Plan, folder: Path, board_ram_bytes: int | None = None, reserved: Flash | None = None) -> Flash:
    """Writes sources, runtime, board files and the build descriptions into `folder`; gives the flash of the banks.

    The linker script's RAM is `board_ram_bytes`, or the plan's limit. `reserved`: the sectors for the banks.
    """
    flash = bank_flash(plan, reserved)
    source = assets()
    if folder.exists():
        shutil.rmtree(folder)
    for name, text in emit(plan).items():
        write_text(folder / "src" / name, text)
    _copy(source / "runtime_c" / "include", folder / "runtime" / "include")
    _copy(source / "runtime_c" / "src", folder / "runtime" / "src")
    _copy(source / "runtime_c" / "ports", folder / "runtime" / "ports")
    _copy(source / "firmware" / "apps" / "finetune", folder / "app")
    _copy(source / "firmware" / "boards", folder / "boards")
    _copy(source / "firmware" / "platform", folder / "platform")
    values = {
        "ram_bytes": board_ram_bytes or plan.limits.ram_bytes,
        "stack_bytes": plan.limits.stack_bytes,
        "defines": [
            f"MDY_GRAD_BITS={plan.limits.grad_bits}",
            f"MDY_ROUND_ONCE={int(plan.qgraph.rounds_once)}",
        ],
        "flash": flash,
    }
    templates = {
        "firmware/flash_geometry.h.j2": "src/flash_geometry.h",
        "firmware/platform/platformio.ini.j2": "platformio.ini",
        "firmware/Makefile.j2": "Makefile",
        "firmware/CMakeLists.txt.j2": "CMakeLists.txt",
        "firmware/boards/qemu_mps2/link.ld.j2": "link.ld",
    }
    for template, target in templates.items():
        write_text(folder / target, _render(source / template, values))
    return flash


def _copy(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.suffix not in (".j2", ".pyc"):
            write_bytes(target / file.relative_to(source), file.read_bytes())


def _render(template: Path, values: dict[str, object]) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.from_string(template.read_text()).render(values)
