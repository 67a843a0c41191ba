# SPDX-License-Identifier: Apache-2.0
"""The planned region over one training step, as a picture: `medyate plan` and `medyate report` draw the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from medyate.boards import KIB
from medyate.figure import new_figure, write_figure

COLOURS = {"activation": "#4477aa", "gradient": "#ee6677", "mask": "#ccbb44", "scratch": "#999999"}
PARTS = {"static": "#888888", "planned": "#4477aa", "epoch": "#228833", "state": "#aa3377", "free": "#eeeeee"}
"""What an area holds; planned comes in the colours above, over time."""
FONT = 7.0
LABEL_HEIGHT = 0.028
"""Of the axis, below which a box has no room for its name."""


def memory_map(axis: Any, plan: Mapping[str, Any], *, labels: bool = True) -> None:
    """One box for each planned value: its groups of steps by its bytes; live bytes, lower bound, phases."""
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke

    values = [value for value in plan["values"] if value["bytes"] > 0]
    groups = plan["groups"]
    top = max(plan["planned_bytes"], 1)
    for number, value in enumerate(values):
        axis.bar(
            value["first"],
            value["bytes"] / KIB,
            value["last"] - value["first"] + 1,
            value["offset"] / KIB,
            align="edge",
            color=COLOURS[value["kind"]],
            edgecolor="white",
            linewidth=0.3,
            gid=f"value-{number}",
        )
    if labels:
        _labels(axis, values, len(groups), top)
    edges = range(len(groups) + 1)
    (line,) = axis.step(
        edges,
        [group["bytes"] / KIB for group in groups] + [groups[-1]["bytes"] / KIB],
        where="post",
        color="black",
        linewidth=1.0,
        label="bytes alive",
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )
    bound = axis.axhline(
        plan["planned_lower_bound_bytes"] / KIB, color="black", linestyle=":", linewidth=1.0, label="lower bound"
    )
    _phases(axis, [group["phase"] for group in groups])
    kinds = [kind for kind in COLOURS if any(value["kind"] == kind for value in values)]
    handles = [*(Patch(color=COLOURS[kind], label=kind) for kind in kinds), line, bound]
    axis.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.11),
        ncols=len(handles) if labels else 3,
        fontsize="small",
        frameon=False,
    )
    axis.set(xlabel="group of steps", ylabel="planned region, KiB", xlim=(0, len(groups)), ylim=(0, 1.08 * top / KIB))


def _labels(axis: Any, values: Sequence[Mapping[str, Any]], groups: int, top: int) -> None:
    """Names of boxes that have room for them."""
    figure = axis.figure
    box = axis.get_position()
    inches = figure.get_figwidth() * box.width
    for value in values:
        span = value["last"] - value["first"] + 1
        room = int(span / groups * inches * 72 / (0.62 * FONT)) - 1  # letters
        name = _short(value["name"])
        if value["bytes"] < LABEL_HEIGHT * top or room < 4:
            continue
        text = name if len(name) <= room else name[: room - 1] + "…"
        axis.text(
            value["first"] + span / 2,
            (value["offset"] + value["bytes"] / 2) / KIB,
            text,
            ha="center",
            va="center",
            fontsize=FONT,
            color="white" if value["kind"] in ("activation", "gradient") else "black",
            clip_on=True,
            zorder=3,
            bbox={"facecolor": COLOURS[value["kind"]], "edgecolor": "none", "pad": 0.8},
        )


def _short(name: str) -> str:
    """An exporter's path without what the next part says again: blocks.0/expand.0 ..."""
    parts = [part for part in name.removeprefix("d_").split("/") if part]
    return "/".join(part for part, behind in zip(parts, [*parts[1:], ""], strict=True) if not behind.startswith(part))


def _phases(axis: Any, phases: Sequence[str]) -> None:
    """Forward, head and backward, with lines between them."""
    at = 0
    for name, same in groupby(phases):
        end = at + sum(1 for _ in same)
        if at > 0:
            axis.axvline(at, color="black", linewidth=0.8, linestyle="--")
        place = axis.get_xaxis_transform()
        axis.text((at + end) / 2, 1.01, name, transform=place, ha="center", va="bottom", fontsize="small")
        at = end


def areas(axis: Any, regions: Sequence[Mapping[str, Any]]) -> None:
    """One bar for each RAM area: what it holds and what is free."""
    names = list(dict.fromkeys(row["area"] for row in regions if row["region"] == "free"))
    heights = dict.fromkeys(names, 0.0)
    largest = max(sum(row["bytes"] for row in regions if row["area"] == name) for name in names) / KIB
    seen: set[str] = set()
    for row in regions:
        place = names.index(row["area"])
        size = row["bytes"] / KIB
        label = "static, stack" if row["region"] == "static" else row["region"]
        axis.bar(
            place,
            size,
            0.6,
            heights[row["area"]],
            color=PARTS[row["region"]],
            edgecolor="#999999",
            linewidth=0.5,
            label=None if row["region"] in seen else label,
        )
        if size > 0.03 * largest:
            dark = row["region"] != "free"
            axis.text(
                place,
                heights[row["area"]] + size / 2,
                f"{size:,.1f}",
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
            )
        seen.add(row["region"])
        heights[row["area"]] += size
    axis.set(ylabel="RAM areas, KiB", ylim=(0, 1.02 * largest), xlim=(-0.6, len(names) - 0.4))
    axis.set_xticks(range(len(names)), names)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, fontsize="small", frameon=False)


def draw_plan(content: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Writes the memory map and the areas, as PNG or SVG by the files' names. Raises ToolchainError, ArtefactError."""
    count = sum(row["region"] == "free" for row in content["regions"])
    figure, (left, right) = new_figure(1, 2, (13.0 + count, 6.5), width_ratios=[10, 1.4 + count])
    memory_map(left, content)
    areas(right, content["regions"])
    board = "" if content["board"] is None else f" on {content['board']}"
    figure.suptitle(
        f"{content['network']}{board}: planned {content['planned_bytes']:,} B "
        f"(lower bound {content['planned_lower_bound_bytes']:,} B), {len(content['candidates'])} candidate layers, "
        f"limit {content['ram_limit_bytes']:,} B"
    )
    write_figure(figure, paths)
