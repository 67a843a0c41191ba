# SPDX-License-Identifier: Apache-2.0
"""Figures of matplotlib to files; the same content gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medyate.artefact import write_bytes
from medyate.errors import DataError
from medyate.extras import require

SUFFIXES = (".png", ".svg")


def check_picture(path: Path) -> None:
    """Raises DataError where a picture of that name cannot be written, ToolchainError where nothing draws it."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"'{path}' is no name of a picture.", f"End it in {' or '.join(SUFFIXES)}.")
    check_drawing()


def check_drawing() -> None:
    """Raises ToolchainError without matplotlib; for commands that draw when their work is done."""
    require("a picture", "matplotlib")


def new_figure(rows: int, columns: int, inches: tuple[float, float], **grid: Any) -> tuple[Any, Any]:
    """(figure, axes)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "medyate"
    matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollar signs
    return pyplot.subplots(rows, columns, figsize=inches, constrained_layout=True, gridspec_kw=grid or None)


def write_figure(figure: Any, paths: Sequence[Path]) -> None:
    """Writes PNG or SVG, by the files' names."""
    from matplotlib import pyplot

    figure.canvas.draw()
    figure.set_layout_engine("none")  # laid out once: every format shows the same
    for path in paths:
        check_picture(path)
        kind = path.suffix.lower()[1:]
        buffer = io.BytesIO()
        dates = {"Software": None} if kind == "png" else {"Date": None}
        figure.savefig(buffer, dpi=100, format=kind, metadata=dates)
        write_bytes(path, buffer.getvalue())
    pyplot.close(figure)
