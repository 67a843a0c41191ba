# SPDX-License-Identifier: Apache-2.0
"""Builds a project for a target: the host with its C compiler, boards with PlatformIO or make."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from medyate.build.manifest import building
from medyate.build.stack import bound
from medyate.errors import BudgetError, ToolchainError
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan
from medyate.scons_package import lay_out_scons

APT = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"


@dataclass(frozen=True)
class Image:
    """A built program."""

    target: str
    path: Path
    static_bytes: int
    """.data + .bss without the arena; 0 on the host, where nothing is counted."""
    flash_bytes: int
    """Code and constants."""
    stack_bytes: int | None
    """The deepest that the stack can get; None where the compiler does not tell."""


def require(tool: str, remedy: str) -> str:
    """The path of a tool. Raises ToolchainError with the command that installs it."""
    found = shutil.which(tool)
    if found is None:
        raise ToolchainError(f"'{tool}' is not installed.", f"Install it with: {remedy}")
    return found


def check_tools(target: str, builder: str) -> None:
    """Raises ToolchainError when a tool is missing that a build needs."""
    if target != "host":
        require("arm-none-eabi-gcc", APT)
    if target == "host" or builder == "make":
        require("make", "apt-get install make")
    if target == "host":
        require(os.environ.get("CC", "cc"), "apt-get install gcc")


def build(plan: Plan, project: Path, target: str, builder: str) -> Image:
    """Compiles the project. Raises ToolchainError when a tool is missing or fails."""
    check_tools(target, builder)
    with building(project):
        return _build(plan, project, target, builder)


def build_host(project: Path, folder: Path) -> Path:
    """The host's program of a project, for whatever target it was compiled; made in `folder`.

    Raises ToolchainError.
    """
    check_tools("host", "make")
    if not (project / "Makefile").is_file():
        raise ToolchainError(f"there are no sources in '{project}'.", "Run `medyate compile` again.")
    _run(["make", "-s", "-j2", f"BUILD={folder.resolve()}", "host"], project, {})
    return folder / "host" / "firmware"


def _build(plan: Plan, project: Path, target: str, builder: str) -> Image:
    if target == "host":
        _run(["make", "-s", "-j2", "host"], project, {})
        return Image(target, project / "build" / "host" / "firmware", 0, 0, None)
    if builder == "make":
        _run(["make", "-s", "-j2", target], project, {})
        elf = project / "build" / target / "firmware.elf"
    else:
        elf = _platformio(project, target)
    return _measure(plan, target, project, elf)


def _platformio(project: Path, target: str) -> Path:
    core = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "medyate" / "platformio"
    lay_out_scons(core)
    settings = {
        "PLATFORMIO_CORE_DIR": str(core),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
    }
    import sys

    command = [sys.executable, "-m", "platformio", "run", "-s", "-d", str(project.resolve()), "-e", target]
    _run(command, project, settings)
    return project / ".pio" / "build" / target / "firmware.elf"


def _run(command: list[str], folder: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        output = (done.stderr + done.stdout).strip().splitlines()
        overflow = [line for line in output if "overflowed by" in line]
        if overflow:
            raise BudgetError(
                f"the image does not fit the board's RAM ({overflow[0].strip()}).",
                "Give more --ram, or a --board-ram that is large enough.",
            )
        log = folder / "build.log"
        log.write_text("\n".join(output) + "\n")
        reason = next((line for line in output if "error" in line.lower()), output[-1] if output else "?")
        raise ToolchainError(f"the build failed: {reason.strip()}", f"The whole log is in '{log}'.")


def _measure(plan: Plan, target: str, project: Path, elf: Path) -> Image:
    from elftools.elf.elffile import ELFFile

    sizes = {"ram": 0, "flash": 0}
    with elf.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if not section["sh_flags"] & 2:  # SHF_ALLOC
                continue
            if section.name in (".data", ".bss") or section.name.startswith(".area"):
                sizes["ram"] += section["sh_size"]
            if section["sh_type"] == "SHT_PROGBITS":
                sizes["flash"] += section["sh_size"]
    return Image(target, elf, sizes["ram"] - plan.arena_bytes, sizes["flash"], bound(project, elf.parent))


def reserves_suffice(limits: Limits, image: Image) -> bool:
    """Whether static data and stack of an image take no more than was left for them."""
    return image.static_bytes <= limits.static_bytes and (image.stack_bytes or 0) <= limits.stack_bytes
