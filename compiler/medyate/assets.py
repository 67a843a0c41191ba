# SPDX-License-Identifier: Apache-2.0
"""Where the C runtime and the firmware lie."""

from __future__ import annotations

from pathlib import Path


def assets() -> Path:
    """The folder that holds runtime_c/ and firmware/: inside the wheel, or the repository."""
    packed = Path(__file__).resolve().parent / "_assets"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2]


KERNELS = "runtime_c/kernels"
PORTABLE = "ref"
"""The family that any C compiler takes, and that all others compute alike."""
LIKE = {"mve": "dsp"}
"""Families whose cores have what another one is for, too: its file is taken rather than the portable one."""


def families() -> tuple[str, ...]:
    """Every family of kernels, the portable one first."""
    names = (folder.name for folder in (assets() / KERNELS).iterdir() if folder.is_dir())
    return tuple(sorted(names, key=lambda name: (name != PORTABLE, name)))


def kernel_files(family: str) -> list[str]:
    """The files of a family, as `<family>/<file>`: its own, else those of the family it is like, else portable ones."""
    folder, order = assets() / KERNELS, [PORTABLE, family]
    if family in LIKE:
        order.insert(1, LIKE[family])
    files = {path.name: f"{each}/{path.name}" for each in order for path in (folder / each).glob("*.c")}
    return [files[name] for name in sorted(files)]
