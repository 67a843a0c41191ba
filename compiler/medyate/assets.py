# SPDX-License-Identifier: Apache-2.0
"""Where the C runtime and the firmware lie."""

from __future__ import annotations

from pathlib import Path


def assets() -> Path:
    """The folder that holds runtime_c/ and firmware/: inside the wheel, or the repository."""
    packed = Path(__file__).resolve().parent / "_assets"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2]
