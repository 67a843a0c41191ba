# SPDX-License-Identifier: Apache-2.0
"""Results of `medyate bench` on a terminal, and as a picture of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from medyate.bench.phases import INFERENCE, PHASES, TRAINING_STEP
from medyate.emit.filters import telling_parts
from medyate.figure import new_figure, write_figure

SMALL = 1e-3
"""Share of a phase below which rows are shown as one."""
LEAST_WIDTH = 16
"""Characters of a layer's name, however narrow the terminal."""
SPOKEN = {"inference": "inference", "training_step": "training step", "commit": "commit"}
Cells = tuple[str, ...]


def print_result(content: Mapping[str, Any], console: Console) -> None:
    """Layers, totals, the estimate."""
    estimate = content["estimate"]
    heading: Cells
    for phase in PHASES:
        rows = [row for row in content["layers"] if row["phase"] == phase]
        if rows:
            heading = (SPOKEN[phase], "direction", "MACs", "instructions", "%", "per MAC", "weights B")
            console.print(_table(heading, _layers(content[phase], rows), console.width), "")
    heading = ("", "instructions", "cycles, estimate", f"ms at {estimate['clock_hz'] / 1e6:g} MHz, estimate")
    console.print(_table(heading, [_total(content, phase) for phase in PHASES], console.width))
    low, high = estimate["cycles_per_instruction"]
    console.print(
        f"{content['network']} on {content['target']} ({content['core']}), samples: {content['samples']}; "
        f"{content['note']}\n"
        f"cycles are an estimate, {low:g} to {high:g} for each instruction; left out are {estimate['leaves_out']}"
    )


def print_comparison(content: Mapping[str, Any], console: Console) -> None:
    """Layers and totals of two results; B by A."""
    for letter, result in zip("AB", content["results"], strict=True):
        console.print(f"{letter}: {result['network']} on {result['target']}, {result['file']}")
    for phase in PHASES:
        rows = [row for row in content["layers"] if row["phase"] == phase]
        cells = [(row["name"], row["direction"], *_ratio(row)) for row in rows]
        cells.append(("total", "", *_ratio(content[phase])))
        console.print(_table((SPOKEN[phase], "direction", "A", "B", "B / A"), cells, console.width), "")
    console.print(content["note"])


def _table(heading: Cells, rows: Sequence[Cells], width: int) -> Table:
    """Names of layers in the first column, as long as the others leave room for; numbers are aligned."""
    beside = [max(map(len, column)) for column in zip(heading, *rows, strict=True)][1:]
    room = max(width - sum(beside) - len(beside), LEAST_WIDTH)
    first, *others = heading
    aligned = (Column(one, no_wrap=True, justify="left" if one == "direction" else "right") for one in others)
    table = Table(Column(first, no_wrap=True), *aligned, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for name, *cells in rows:
        table.add_row(_short(name, room), *cells)
    return table


def _short(name: str, room: int) -> str:
    """A name without what repeats itself; of one that is still too long the end, which says most of a path."""
    short = "/".join(telling_parts(name)) or name
    return short if len(short) <= room else "…" + short[1 - room :]


def _layers(total: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Cells]:
    small = [row for row in rows if row["instructions"] < SMALL * total["instructions"]]
    cells = [
        (row["name"], row["direction"], *_numbers(row, total), f"{row['weight_bytes']:,}")
        for row in rows
        if row not in small
    ]
    if small:
        rest = {key: sum(row[key] for row in small) for key in ("macs", "instructions")}
        cells.append((f"{len(small)} smaller", "", *_numbers(rest, total), ""))
    cells.append(("other", "", *_numbers({"macs": 0, "instructions": total["other"]}, total), ""))
    return [*cells, ("total", "", *_numbers(total, total), "")]


def _numbers(row: Mapping[str, Any], total: Mapping[str, Any]) -> Cells:
    instructions, macs = row["instructions"], row["macs"]
    share = 100 * instructions / total["instructions"]
    return (
        f"{macs:,}" if macs else "",
        f"{instructions:,}",
        f"{share:.1f}",
        f"{instructions / macs:.2f}" if macs else "",
    )


def _total(content: Mapping[str, Any], phase: str) -> Cells:
    total, estimate = content[phase]["instructions"], content["estimate"]
    if total is None:
        return SPOKEN[phase], "not counted", "", ""
    cycles, milliseconds = (estimate[unit][phase] for unit in ("cycles", "milliseconds"))
    return SPOKEN[phase], f"{total:,}", _range(cycles, ",.0f"), _range(milliseconds, ",.1f")


def _range(pair: Sequence[float], form: str) -> str:
    return " .. ".join(format(value, form) for value in pair)


def _ratio(row: Mapping[str, Any]) -> Cells:
    counts = ("" if count is None else f"{count:,}" for count in row["instructions"])
    return (*counts, "" if row["ratio"] is None else f"{row['ratio']:.3f}")


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Bars of every layer, each direction with its own colour: PNG or SVG."""
    phases = (INFERENCE, TRAINING_STEP)
    names = list(dict.fromkeys(row["name"] for row in content["layers"]))
    directions = list(dict.fromkeys(row["direction"] for row in content["layers"]))
    figure, axes = new_figure(1, 2, (14, max(4.0, 0.24 * len(names) + 2.0)))
    for axis, phase in zip(axes, phases, strict=True):
        left = dict.fromkeys(names, 0.0)
        for number, direction in enumerate(directions):
            rows = [r for r in content["layers"] if (r["phase"], r["direction"]) == (phase, direction)]
            widths = [row["instructions"] / 1e6 for row in rows]
            places = [names.index(row["name"]) for row in rows]
            axis.barh(places, widths, left=[left[r["name"]] for r in rows], color=f"C{number}", label=direction)
            for row, width in zip(rows, widths, strict=True):
                left[row["name"]] += width
        axis.set_yticks(range(len(names)), names, fontsize="small" if len(names) <= 40 else 5)
        axis.tick_params(labelleft=phase == phases[0])
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        total = content[phase]
        axis.set(
            xlabel="million instructions",
            title=f"{SPOKEN[phase]}: {total['instructions']:,}, {total['instructions_per_mac']:.2f} for each MAC",
        )
    axes[1].legend(loc="best", fontsize="small")
    figure.suptitle(f"{content['network']} on {content['target']} ({content['core']}); {content['note']}")
    write_figure(figure, [path])
