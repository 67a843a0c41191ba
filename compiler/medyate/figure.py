# SPDX-License-Identifier: Apache-2.0
"""Figures of matplotlib to files; the same content gives the same bytes."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
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


INK, GRID = "#010203", "#030201"
"""Colours that a page replaces by its own."""


def draw_inline(name: str, inches: tuple[float, float], draw: Callable[[Any, Any], Mapping[str, str] | None]) -> str:
    """An <svg> to be put into a page, in the page's colours, drawn by `draw(figure, axis)`.

    What `draw` returns are tooltips by the gid of what they belong to. `name`: no two of a page have the same.
    """
    import matplotlib
    from matplotlib import pyplot

    own: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none"),
        "grid.color": GRID,
        "legend.framealpha": 0.0,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(own):
        figure, axis = new_figure(1, 1, inches)
        titles = draw(figure, axis) or {}
        axis.set_title("")  # the page has its own
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        pyplot.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for gid, title in titles.items():
        text = text.replace(f'<g id="{name}-{gid}">', f'<g id="{name}-{gid}"><title>{html.escape(title)}</title>')
    for colour, of_page in ((INK, "currentColor"), ("#000000", "currentColor"), (GRID, "var(--line)")):
        text = text.replace(colour, of_page)
    return text.replace("stroke: #ffffff", "stroke: var(--page)")


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
