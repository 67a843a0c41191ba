# SPDX-License-Identifier: Apache-2.0
"""What more memory gives, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medyate.boards import KIB
from medyate.figure import new_figure, write_figure


def draw_frontier(content: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Budget, layers and depth against RAM, as PNG or SVG by the files' names."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    points = content["frontier"]
    ram = [point["ram_bytes"] / KIB for point in points]
    figure, (upper, lower) = new_figure(2, 1, (9.0, 8.0))
    for key, name, colour in (
        ("b_mem_bytes", "B_mem: records of selected channels", "#228833"),
        ("planned_bytes", "planned: activations, gradients, masks, scratch", "#4477aa"),
        ("state_bytes", "state: head, norms", "#aa3377"),
    ):
        upper.plot(ram, [point[key] / KIB for point in points], marker="o", color=colour, label=name)
    upper.set(ylabel="KiB", title="What the memory holds")
    lower.plot(ram, [point["layers"] for point in points], marker="o", color="#ee6677", label="K: candidate layers")
    lower.plot(
        ram, [p["depth"] for p in points], marker="s", color="#444444", label="layers down to the deepest candidate"
    )
    lower.plot(
        ram,
        [point["expected_depth"] for point in points],
        marker="x",
        linestyle="--",
        color="#4477aa",
        label="layers down to the deepest selected one, on average over first selections",
    )
    lower.set(ylabel="layers", title=f"What is trained, of {content['total_layers']} layers")
    for axis in (upper, lower):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(LogLocator(base=2, subs=(1.0, 1.25, 1.5, 1.75)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(xlabel="RAM in all, KiB", xlim=(0.95 * ram[0], 1.05 * ram[-1]))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    upper.legend(loc="upper left", fontsize="small")
    lower.legend(loc="lower right", fontsize="small")
    figure.suptitle(f"the smallest RAM in which {content['network']} trains is {content['smallest_ram_bytes']:,} B")
    write_figure(figure, paths)
