# SPDX-License-Identifier: Apache-2.0
"""Strategies against each other: Student's t-test over pairs of runs that differ in the strategy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medyate.study.rows import Row, mean, unique
from medyate.study.tables import table


@dataclass(frozen=True)
class Test:
    """One strategy against another."""

    difference: float
    """Mean of first minus second, in points."""
    p: float | None
    """Two-sided; None for fewer than two pairs, or pairs that all differ alike."""
    pairs: int


def pairs(rows: Sequence[Row], first: str, second: str) -> list[tuple[float, float]]:
    """Accuracies of both under the same network, data, budget, rate and seed; one without a budget goes with any."""
    return [
        (a.accuracy, b.accuracy)
        for a in rows
        if a.label == first
        for b in rows
        if b.label == second
        and a.place == b.place
        and (a.cell.budget == b.cell.budget or not a.cell.budget * b.cell.budget)
    ]


def compare(rows: Sequence[Row], first: str, second: str) -> Test | None:
    """The test; None where nothing pairs."""
    from scipy import stats

    found = pairs(rows, first, second)
    if not found:
        return None
    differences = [a - b for a, b in found]
    varies = max(differences) - min(differences) > 1e-9
    p = float(stats.ttest_rel(*zip(*found, strict=True)).pvalue) if varies else None
    return Test(mean(differences), p, len(found))


def order(rows: Sequence[Row]) -> tuple[str, ...]:
    """Strategies by how many of the others they beat in the mean of the pairs, and then by how much."""
    labels = unique(row.label for row in rows)

    def strength(label: str) -> tuple[int, float]:
        tests = [test for other in labels if other != label and (test := compare(rows, label, other))]
        return sum(test.difference > 0 for test in tests), sum(test.difference for test in tests)

    return tuple(sorted(labels, key=strength, reverse=True))


def matrix(rows: Sequence[Row]) -> str:
    """Every strategy against every other one: row minus column in points, and p."""
    labels = order(rows)
    lines = []
    for first in labels:
        tests = [compare(rows, first, second) if first != second else None for second in labels]
        cells = ["" if t is None else f"{t.difference:+.2f}" + ("" if t.p is None else f" ({t.p:.3f})") for t in tests]
        lines.append([first, *cells])
    return table(["points (p)", *labels], lines)


def against(rows: Sequence[Row], reference: str) -> str:
    """Every strategy against one."""
    lines = []
    for label in order(rows):
        test = compare(rows, label, reference) if label != reference else None
        if test is not None:
            p = "" if test.p is None else f"{test.p:.4f}"
            lines.append([label, f"{test.difference:+.2f}", p, str(test.pairs)])
    return table(["strategy", f"points above {reference}", "p", "pairs"], lines)
