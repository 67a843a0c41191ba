# SPDX-License-Identifier: Apache-2.0
"""Tables of a study in Markdown, in the form of the papers'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medyate.study.rows import Group, Row, average, by_mean, mean, spread, unique


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def accuracy(group: Group) -> str:
    """Mean and standard deviation over seeds by data set; the average's is the root of the summed squares."""
    rows = []
    for label in by_mean(group):
        cells, squares = [], 0.0
        for data in group.data:
            values = [row.accuracy for row in group.of(label, data)]
            cells.append(f"{mean(values):.2f} ± {spread(values):.2f}" if values else "")
            squares += spread(values) ** 2
        seeds = max(len(group.of(label, data)) for data in group.data)
        rows.append([label, *cells, f"{average(group, label):.2f} ± {math.sqrt(squares):.2f}", str(seeds)])
    return table(["strategy", *group.data, "average", "seeds"], rows)


def footprints(group: Group) -> str:
    """What each strategy leaves out of training, and what accuracy a byte buys over the head alone."""
    alone = [row for row in group.rows if row.cell.strategy == "head"]
    heads = {key: mean(r.accuracy for r in alone if r.beside == key) for key in unique(r.beside for r in alone)}
    rows = []
    for label in by_mean(group):
        found = tuple(row for row in group.of(label) if "weights" in row.result)
        if not found:
            continue
        saved = [100.0 * (1.0 - share(found, name)) for name in ("weights", "activations", "macs")]
        elements = mean(mean(r.result["weights"]) + mean(r.result["activations"]) for r in found)
        gains = [row.accuracy - heads[row.beside] for row in found if row.beside in heads]
        per_byte = f"{mean(gains) / elements * 1024:.2f}" if gains and elements else ""
        deepest = min(min(row.result["deepest"]) for row in found)
        k = f"{mean(row.result['k'] for row in found):.0f}" if found[0].result["k"] else ""
        rows.append([label, k, f"{elements:,.0f}", *(f"{value:.2f}" for value in saved), str(deepest), per_byte])
    head = ["strategy", "K", "elements", "weight sparsity %", "activation sparsity %", "MACs saved %"]
    return table([*head, "first trained layer", "points per KiB"], rows) if rows else ""


def share(rows: Sequence[Row], name: str) -> float:
    """What is trained of all weights, maps or multiply-adds, in the mean over epochs and rows."""
    return mean(mean(row.result[name]) / row.result[f"total_{name}"] for row in rows)


def sweep(rows: Sequence[Row], axis: str, values: Sequence[Any]) -> str:
    """Mean accuracy over everything else by value and strategy, with its standard deviation over all runs."""
    labels = unique(row.without(axis) for row in rows if row.value(axis) is not None)
    lines = []
    for value in values:
        cells = []
        for label in labels:
            found = [row.accuracy for row in rows if row.value(axis) == value and row.without(axis) == label]
            cells.append(f"{mean(found):.2f} ± {spread(found):.2f}" if found else "")
        lines.append([f"{value:,}" if isinstance(value, int) else f"{value:g}", *cells])
    return table([axis, *labels], lines)


def stability(rows: Sequence[Row]) -> str:
    """Mean p of consecutive epochs' norms, by strategy, data set and epoch."""
    found = [row for row in rows if any(p is not None for p in row.result.get("p", ()))]
    if not found:
        return ""
    epochs = max(len(row.result["p"]) for row in found)
    lines = []
    for label, data in unique((row.label, row.data) for row in found):
        own = [row.result["p"] for row in found if (row.label, row.data) == (label, data)]
        cells = []
        for epoch in range(1, epochs):
            values = [p[epoch] for p in own if len(p) > epoch and p[epoch] is not None]
            cells.append(f"{mean(values):.3f}" if values else "")
        lines.append([f"{label} on {data}", *cells])
    return table(["strategy", *(str(epoch + 1) for epoch in range(1, epochs))], lines)


def engines(rows: Sequence[Row]) -> str:
    """Cells that both engines ran: their mean accuracies, and by how many points the integers differ."""
    by_engine = {
        engine: {row.without_engine: row for row in rows if row.cell.facts.engine == engine}
        for engine in ("float", "device")
    }
    both = [key for key in by_engine["float"] if key in by_engine["device"]]
    pairs = [(by_engine["float"][key], by_engine["device"][key]) for key in both]
    lines = []
    for place in unique((f.result["network"], f.data, f.without_engine.label) for f, _ in pairs):
        own = [(f, d) for f, d in pairs if (f.result["network"], f.data, f.without_engine.label) == place]
        lines.append([" ".join(place), *_engines_line(own)])
    if not pairs:
        return ""
    return table(["cells", "float", "device", "difference", "runs"], [*lines, ["average", *_engines_line(pairs)]])


def _engines_line(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    floats, integers = mean(f.accuracy for f, _ in pairs), mean(d.accuracy for _, d in pairs)
    return [f"{floats:.2f}", f"{integers:.2f}", f"{integers - floats:+.2f}", str(len(pairs))]


def device(group: Group) -> str:
    """What the integer twin was given."""
    rows = []
    for label in by_mean(group):
        found = [row.result for row in group.of(label) if "b_mem_bytes" in row.result]
        if found:
            first = found[0]
            names = ("k", "b_mem_elements", "b_mem_bytes", "ram_bytes", "step_instructions")
            rows.append([label, *(f"{first[name]:,}" for name in names)])
    head = ["strategy", "K", "B_mem elements", "B_mem bytes", "RAM bytes", "instructions of a step, at most"]
    return table(head, rows) if rows else ""
