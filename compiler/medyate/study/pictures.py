# SPDX-License-Identifier: Apache-2.0
"""Pictures of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medyate.figure import new_figure, write_figure
from medyate.study import paired
from medyate.study.rows import Group, Row, by_mean, mean, spread, unique


def curves(group: Group, path: Path) -> None:
    """Accuracy over epochs by strategy, the mean over seeds; one panel for each data set."""
    made, axes = new_figure(1, len(group.data), (2.5 + 5 * len(group.data), 5))
    for axis, data in zip(np.atleast_1d(axes), group.data, strict=True):
        for i, label in enumerate(by_mean(group)):
            found = [row.result["accuracies"] for row in group.of(label, data)]
            if found:
                style = ("-", "--", ":")[i // 10 % 3]
                axis.plot(range(1, len(found[0]) + 1), 100 * np.mean(found, 0), style, color=f"C{i % 10}", label=label)
        axis.set(title=f"{data}: {group.title}", xlabel="epoch", ylabel="test accuracy %")
        axis.title.set_fontsize(8)
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_figure(made, [path])


def pareto(group: Group, path: Path) -> None:
    """Accuracy against the instructions of a step; colours are RAM, what is dominated in neither is joined."""
    made, axes = new_figure(1, len(group.data), (1.5 + 5 * len(group.data), 4.5))
    for axis, data in zip(np.atleast_1d(axes), group.data, strict=True):
        found = []
        for label in by_mean(group):
            own = [row for row in group.of(label, data) if "step_instructions" in row.result]
            if own:
                first = own[0].result
                taken = (first["step_instructions"] / 1e6, first["ram_bytes"] / 1024)
                found.append((*taken, mean(row.accuracy for row in own), label))
        best = sorted(p for p in found if not any(q[0] <= p[0] and q[2] > p[2] for q in found))
        axis.plot([p[0] for p in best], [p[2] for p in best], "-", color="0.7", zorder=1)
        points = axis.scatter(*zip(*((p[0], p[2]) for p in found), strict=True), c=[p[1] for p in found], zorder=2)
        for million, _, points_, label in found:
            axis.annotate(label, (million, points_), fontsize=6, xytext=(4, 4), textcoords="offset points")
        axis.margins(0.25)  # labels have room
        axis.set(title=f"{data}: {group.title}", xlabel="million instructions of a step", ylabel="test accuracy %")
        axis.title.set_fontsize(8)
        axis.grid(alpha=0.3)
        made.colorbar(points, ax=axis, label="KiB of RAM")
    write_figure(made, [path])


def tests(rows: Sequence[Row], path: Path) -> None:
    """Mean differences of all pairs of strategies in points, with their p."""
    labels = paired.order(rows)
    pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j]
    found = {(i, j): test for i, j in pairs if (test := paired.compare(rows, labels[i], labels[j]))}
    differences = np.zeros((len(labels), len(labels)))
    for place, test in found.items():
        differences[place] = test.difference
    limit = max(
        0.1, float(np.quantile(np.abs(differences), 0.9))
    )  # one strategy that failed leaves the others' colours
    made, axis = new_figure(1, 1, (3 + 0.6 * len(labels), 2 + 0.5 * len(labels)))
    axis.imshow(differences, cmap="RdBu", vmin=-limit, vmax=limit)
    for (i, j), test in found.items():
        text = f"{test.difference:+.1f}" + ("" if test.p is None else f"\np {test.p:.2f}")
        dark = abs(test.difference) > 0.6 * limit
        axis.text(j, i, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
    axis.set(xticks=range(len(labels)), yticks=range(len(labels)), title="row minus column, points; paired t-tests")
    axis.set_xticklabels(labels, rotation=40, ha="right", fontsize=7)
    axis.set_yticklabels(labels, fontsize=7)
    write_figure(made, [path])


def sweep(rows: Sequence[Row], axis_name: str, values: Sequence[Any], path: Path) -> None:
    """Mean accuracy over the values of an axis, by strategy; bars are standard deviations over all runs."""
    made, axis = new_figure(1, 1, (7, 4.5))
    for label in unique(row.without(axis_name) for row in rows if row.value(axis_name) is not None):
        points = []
        for value in values:
            found = [row.accuracy for row in rows if row.value(axis_name) == value and row.without(axis_name) == label]
            points += [(value, mean(found), spread(found))] if found else []
        axis.errorbar(*zip(*points, strict=True), marker="o", capsize=2, label=label)
    axis.set(xlabel=axis_name, ylabel="test accuracy %")
    if axis_name == "rate":
        axis.set_xscale("log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    write_figure(made, [path])


def stability(rows: Sequence[Row], path: Path) -> None:
    """The p of consecutive epochs' norms."""
    made, axis = new_figure(1, 1, (7, 4))
    for i, label in enumerate(unique(row.label for row in rows)):
        for run, row in enumerate(row for row in rows if row.label == label):
            points = [(epoch + 1, p) for epoch, p in enumerate(row.result["p"]) if p is not None]
            shown = label if run == 0 else None  # one entry in the legend
            axis.plot(*zip(*points, strict=True), color=f"C{i % 10}", alpha=0.7, label=shown)
    axis.set(xlabel="epoch", ylabel="p against the epoch before", ylim=(0, 1))
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    write_figure(made, [path])
