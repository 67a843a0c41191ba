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


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Each p corrected for the number of them, step by step from the smallest; what has no p is no test.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    found: list[float | None] = [None] * len(values)
    ranked = sorted((p, place) for place, p in enumerate(values) if p is not None)
    largest = 0.0
    for before, (p, place) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - before) * p))
        found[place] = largest
    return found


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
    others = [label for label in order(rows) if label != reference]
    return _family(["strategy", f"points above {reference}"], rows, [(label, label, reference) for label in others])


def asked(rows: Sequence[Row], contrasts: Sequence[tuple[str, str]]) -> str:
    """The comparisons that a study names."""
    return _family(["contrast", "points"], rows, [(f"{a} - {b}", a, b) for a, b in contrasts])


def _family(head: list[str], rows: Sequence[Row], tests: Sequence[tuple[str, str, str]]) -> str:
    """(title, first, second) each a line, with its p and that of Holm's correction for the table's number of them."""
    named = [(title, compare(rows, first, second)) for title, first, second in tests]
    found = [(title, test) for title, test in named if test is not None]
    lines = []
    for (title, test), corrected in zip(found, holm([test.p for _, test in found]), strict=True):
        p = ["" if value is None else f"{value:.4f}" for value in (test.p, corrected)]
        lines.append([title, f"{test.difference:+.2f}", *p, str(test.pairs)])
    return table([*head, "p", "p (Holm)", "pairs"], lines)
