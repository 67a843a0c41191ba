# SPDX-License-Identifier: Apache-2.0
"""Figures without a screen, written whole: PNG or SVG by the file's name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from medyate.artefact import write_bytes
from medyate.errors import DataError, ToolchainError

FORMATS = (".png", ".svg")


def figure(rows: int, columns: int, inches: tuple[float, float]) -> tuple[Any, Any]:
    """(figure, array of axes). Raises ToolchainError without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ToolchainError("pictures need matplotlib.", "Install it with: pip install 'medyate[report]'.") from error
    matplotlib.rcParams["svg.hashsalt"] = "medyate"  # the same figure gives the same bytes
    made, axes = pyplot.subplots(rows, columns, figsize=inches, constrained_layout=True, squeeze=False)
    return made, axes


def check_format(path: Path) -> None:
    """Raises DataError for a name that says no format."""
    if path.suffix not in FORMATS:
        raise DataError(f"'{path}' is no picture's name.", f"End it in {' or '.join(FORMATS)}.")


def save(made: Any, path: Path) -> None:
    """Writes a figure and lets it go."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    made.savefig(buffer, dpi=100, format=path.suffix.removeprefix("."), metadata=metadata)
    pyplot.close(made)
    write_bytes(path, buffer.getvalue())
