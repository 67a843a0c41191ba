# SPDX-License-Identifier: Apache-2.0
"""Whether a layout carries its steps: they are played on a memory that knows which row of which value each byte holds.

Nothing of the planner's reasoning is used, only the order of the groups, what each step reads and writes, and where
values lie: a row is there when it is read, and until its reader is done; a value is written before it is read; scratch
and outputs of a step leave its inputs alone, but for the value in whose place it works, read before it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from medyate.errors import PlanError
from medyate.plan.ids import ValueId
from medyate.plan.layout import Layout
from medyate.plan.schedule import Schedule
from medyate.plan.steps import Step, Use
from medyate.plan.stream import Group
from medyate.plan.workspace import Key, Workspace, key

ROWS = 1 << 16
"""More rows than a tensor has."""


def verify(schedule: Schedule, layout: Layout, workspaces: Mapping[Key, Workspace]) -> None:
    """Raises PlanError for the first byte that is not what a step takes it for."""
    _Memory(schedule, layout, workspaces).play()


class _Memory:
    def __init__(self, schedule: Schedule, layout: Layout, workspaces: Mapping[Key, Workspace]) -> None:
        self.schedule, self.layout, self.workspaces = schedule, layout, workspaces
        self.stores = schedule.plan.stores
        self.numbers = {value: number for number, value in enumerate(self.stores)}
        self.bytes = np.full(layout.planned_bytes, -1, np.int64)
        """What each byte holds: the number of a value and a row of it."""

    def play(self) -> None:
        plan = self.schedule.plan
        for value in plan.given:
            self._write(value, self._all(value), "the start")
        for group in self.schedule.groups:
            turns = [0] * len(group.stages)
            for number in group.order or [0] * max(1, group.stages[0].rows):
                self._run(group, group.stages[number], turns[number])
                turns[number] += 1
            for stage, made in zip(group.stages, turns, strict=True):
                if made != max(1, stage.rows):
                    raise PlanError(f"{stage.kind} of '{stage.node}' makes {made} of {stage.rows} rows")
            for step in group.after:
                for row in range(1 if step.node in group.summed else max(1, step.rows)):
                    self._run(group, step, row)
        self._check(plan.kept, self._all(plan.kept), "the end")

    def _run(self, group: Group, step: Step, row: int) -> None:
        """One row of a step, or all of one whose rows are made at once."""
        who = f"{step.kind} of '{step.node}', row {row}"
        by_sums = step.kind == "update" and step.node in group.summed
        uses = [use for use in step.uses if group.takes(step, use) and not (by_sums and use.mode != "sums")]
        reads = [(use, self._rows(step, use, row)) for use in uses if use.mode in ("read", "change")]
        writes = [(use, self._rows(step, use, row)) for use in uses if use.mode == "write"]
        for use, rows in reads:
            self._check(use.value, rows, who)
        for use in uses:
            if use.mode == "work" or (use.mode == "sums" and step.kind == "weights" and row == 0):
                self._write(use.value, range(1), who)
            elif use.mode == "sums":
                self._check(use.value, range(1), who)
        workspace = self.workspaces.get(key(step))
        if workspace is not None:
            self._work(workspace, who)
            reads += [(use, range(1)) for use in uses if use.mode == "work"]
        for use, rows in writes:
            self._write(use.value, rows, who)
        first = row - row % workspace.band if workspace is not None and step.rows > 0 else row
        for use, rows in [*reads, *writes]:
            together = rows if use.mode == "work" else range(self._rows(step, use, first).start, rows.stop)
            self._check(use.value, (r for r in together if not self._gives_way(step, use, r, row)), who)

    def _gives_way(self, step: Step, use: Use, row: int, now: int) -> bool:
        """Whether a row that was read may be gone: value by value, its step wrote the same row in its place."""
        if not step.in_place or use.mode != "read" or (step.rows > 0 and row != now):
            return False
        made = [other.value for other in step.uses if other.mode == "write"]
        same = [value for value in made if self.stores[value].kind == self.stores[use.value].kind]
        return any(
            self.stores[value].bytes == self.stores[use.value].bytes
            and self._place(value, row)[0] <= self._place(use.value, row)[0]
            for value in same
        )

    def _all(self, value: ValueId) -> range:
        return range(self.stores[value].rows)

    def _rows(self, step: Step, use: Use, row: int) -> range:
        if use.rows is None:
            return self._all(use.value)
        return range(*use.rows[row]) if step.rows > 0 else self._all(use.value)

    def _place(self, value: ValueId, row: int) -> tuple[int, int]:
        """First byte of a row, and one past its last."""
        size = self.stores[value].row_bytes
        place = self.schedule.places.get(value, value)
        begin = self.layout.offsets[place] + row % self.schedule.rows(value) * size
        return begin, begin + size

    def _work(self, workspace: Workspace, who: str) -> None:
        begin, end = workspace.offset, workspace.offset + workspace.bytes
        if not 0 <= begin <= end <= len(self.bytes):
            raise PlanError(f"the workspace of {who} is outside of the planned region")
        self.bytes[begin:end] = -1

    def _write(self, value: ValueId, rows: range, who: str) -> None:
        for row in rows:
            begin, end = self._place(value, row)
            if not 0 <= begin <= end <= len(self.bytes):
                raise PlanError(f"{who} writes '{value}' outside of the planned region")
            self.bytes[begin:end] = self.numbers[value] * ROWS + row

    def _check(self, value: ValueId, rows: range | Iterator[int], who: str) -> None:
        for row in rows:
            begin, end = self._place(value, row)
            if (self.bytes[begin:end] != self.numbers[value] * ROWS + row).any():
                raise PlanError(f"{who} needs row {row} of '{value}', which is not or no longer there")
