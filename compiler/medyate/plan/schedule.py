# SPDX-License-Identifier: Apache-2.0
"""Steps cut into groups, and the values with their lifetimes: time is the number of the group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from medyate.plan.ids import ValueId
from medyate.plan.layout import Layout, Value, lay_out, lower_bound
from medyate.plan.steps import Pass
from medyate.plan.stream import SLACK, Group, Planner


@dataclass(frozen=True)
class Schedule:
    """Everything in order."""

    plan: Pass
    groups: tuple[Group, ...]

    @cached_property
    def rings(self) -> Mapping[ValueId, int]:
        """Rows held of every value that is a ring."""
        return {name: rows for group in self.groups for name, rows in group.rings.items()}

    def rows(self, value: ValueId) -> int:
        """Rows that memory holds."""
        return self.rings.get(value, self.plan.stores[value].rows)

    @cached_property
    def places(self) -> Mapping[ValueId, ValueId]:
        """The value in whose place each use of scratch lies: the stages of a group take turns."""
        return {
            use.value: ValueId("place", number=number)
            for number, group in enumerate(self.groups)
            for step in group.steps
            for use in step.uses
            if use.mode == "work" and group.takes(step, use)
        }

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """What the planned region holds."""
        spans: dict[ValueId, tuple[int, int]] = dict.fromkeys(self.plan.given, (0, 0))
        sizes: dict[ValueId, int] = {}
        for number, group in enumerate(self.groups):
            for step in group.steps:
                for use in step.uses:
                    if group.takes(step, use):
                        name = self.places.get(use.value, use.value)
                        size = self.plan.stores[use.value].row_bytes * self.rows(use.value)
                        sizes[name] = max(sizes.get(name, 0), size)
                        spans[name] = (spans.get(name, (number, 0))[0], number)
        spans[self.plan.kept] = spans[self.plan.kept][0], len(self.groups) - 1
        overlaps = {group.overlap.made: group.overlap for group in self.groups if group.overlap is not None}
        found = []
        for name, (first, last) in spans.items():
            store, over = self.plan.stores.get(name), overlaps.get(name)
            kind = "scratch" if store is None else store.kind
            place = (None, 0) if over is None else (over.old, over.lag)
            found.append(Value(name, sizes[name], first, last, 8 if kind == "scratch" else 4, kind, *place))
        return tuple(found)


FREE = 1000.0
"""Times the smallest peak: no limit to a cut."""
CAREFUL = 3
"""Cuts that are laid out with care, those with the smallest lower bounds first."""


def make_schedule(plan: Pass, schedule: str, planner: Planner | None = None) -> tuple[Schedule, Layout]:
    """The cut of a pass with the smallest layout; a planner that is kept remembers what it walked."""
    cuts = [Schedule(plan, groups) for groups in (planner or Planner()).cuts(plan, schedule, SLACK)]
    bounds = sorted(((lower_bound(cut.values), number) for number, cut in enumerate(cuts)))
    best: tuple[Schedule, Layout] | None = None
    for least, number in bounds[:CAREFUL]:
        if best is not None and least >= best[1].peak_bytes:
            break
        layout = lay_out(cuts[number].values)
        if best is None or layout.peak_bytes < best[1].peak_bytes:
            best = cuts[number], layout
    assert best is not None
    return best


def free_schedule(plan: Pass, schedule: str, planner: Planner) -> tuple[Schedule, Layout]:
    """The cut in which as little as possible takes turns: kernels are fastest where rows are there as a whole."""
    cut = Schedule(plan, planner.cuts(plan, schedule, (FREE,))[0])
    return cut, lay_out(cut.values)


def least_bytes(plan: Pass, schedule: str, planner: Planner) -> int:
    """What the best cut cannot do without: layouts come close to it."""
    return lower_bound(Schedule(plan, planner.cuts(plan, schedule, SLACK[:1])[0]).values)
