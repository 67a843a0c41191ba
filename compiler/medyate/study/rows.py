# SPDX-License-Identifier: Apache-2.0
"""Results as the report looks at them: rows with a label, in groups that can be compared."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medyate.study.spec import Cell

SWEPT = ("rate", "budget", "k", "alpha")


@dataclass(frozen=True)
class Row:
    """One finished cell."""

    cell: Cell
    result: dict[str, Any]

    @property
    def label(self) -> str:
        """Strategy and settings."""
        return self.cell.label

    @property
    def accuracy(self) -> float:
        """On the test part after the last epoch, in percent."""
        return 100.0 * float(self.result["accuracy"])

    @property
    def data(self) -> str:
        """Name of the data set."""
        return str(self.result["data"])

    @property
    def place(self) -> tuple[Any, ...]:
        """What two rows share that can be compared pair by pair, the budget aside."""
        return (self.result["network"], self.data, self.cell.seed, self.cell.rate, self.cell.fixed)

    @property
    def beside(self) -> tuple[Any, ...]:
        """What it shares with the training of the head alone."""
        return (self.data, self.cell.varied)

    @property
    def without_engine(self) -> Cell:
        """The cell, whoever ran it."""
        return replace(self.cell, varied=tuple(pair for pair in self.cell.varied if pair[0] != "engine"))

    def value(self, axis: str) -> Any:
        """What it has on an axis of the grid; None where it heeds none."""
        if axis == "budget":
            return self.cell.budget or None
        return self.cell.rate if axis == "rate" else dict(self.cell.settings).get(axis)

    def without(self, axis: str) -> str:
        """The label of all rows that differ on this axis only."""
        return replace(self.cell, settings=tuple(pair for pair in self.cell.settings if pair[0] != axis)).label


@dataclass(frozen=True)
class Group:
    """Rows of one network under one budget, rate and engine; those without a budget are in every group."""

    network: str
    budget: int
    rate: float
    unit: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """For a heading."""
        budget = f", budget {self.budget:,} {self.unit}" if self.budget else ""
        return f"{self.network}{budget}, rate {self.rate:g}"

    @property
    def data(self) -> tuple[str, ...]:
        """Data sets in the order of the study."""
        return unique(row.data for row in self.rows)

    def of(self, label: str, data: str | None = None) -> tuple[Row, ...]:
        """Rows of a strategy, on one data set."""
        return tuple(row for row in self.rows if row.label == label and data in (None, row.data))


def groups(rows: Sequence[Row]) -> tuple[Group, ...]:
    """All groups, in the order in which their rows came."""
    found = []
    for network, rate, fixed in unique((row.result["network"], row.cell.rate, row.cell.fixed) for row in rows):
        own = [row for row in rows if (row.result["network"], row.cell.rate, row.cell.fixed) == (network, rate, fixed)]
        unit = {"paper": "elements", "device": "bytes", "ram": "bytes of RAM"}[fixed.cost]
        for budget in sorted({row.cell.budget for row in own if row.cell.budget}) or [0]:
            kept = tuple(row for row in own if row.cell.budget in (0, budget))
            found.append(Group(network, budget, rate, unit, kept))
    return tuple(found)


def unique(values: Iterable[Any]) -> tuple[Any, ...]:
    """Each value once, in the order of its first occurrence."""
    return tuple(dict.fromkeys(values))


def mean(values: Iterable[float]) -> float:
    """Their mean."""
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> float:
    """The sample's standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def by_mean(group: Group) -> tuple[str, ...]:
    """Labels by falling mean of the means over data sets."""
    labels = unique(row.label for row in group.rows)
    return tuple(sorted(labels, key=lambda label: -average(group, label)))


def average(group: Group, label: str) -> float:
    """Mean over the data sets of the means over the seeds."""
    sets = [[row.accuracy for row in group.of(label, data)] for data in group.data]
    return mean(mean(values) for values in sets if values)


def swept(rows: Sequence[Row], axis: str) -> tuple[Any, ...]:
    """Values of an axis if some strategy has more than one, ascending."""
    by_label: dict[str, set[Any]] = {}
    for row in rows:
        if row.value(axis) is not None:
            by_label.setdefault(row.without(axis), set()).add(row.value(axis))
    return tuple(sorted(set().union(*(values for values in by_label.values() if len(values) > 1))))
