# SPDX-License-Identifier: Apache-2.0
"""Depth-first execution: groups of steps that run row by row, so that what lies between them is a ring of rows.

`walk` plays a group once: the last stage asks for its next row, every stage for the rows that this one reads.
It notes in which order rows are made, how many rows of each value are alive at most, and how far the output may
reach into the input that dies meanwhile. The runtime follows that order from a table. `cuts` chooses the
groups: of all ways to cut the steps into contiguous groups, those with the smallest peaks of live bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from operator import add

from medyate.ledger import align
from medyate.ops.opdef import Rows
from medyate.plan.ids import ValueId
from medyate.plan.steps import Pass, Step, Use

STAGES_MAX = 48
"""MDY_STAGES_MAX of the runtime."""

Span = tuple[int, int]
"""Numbers of a first step and of the one behind the last."""

SCHEDULES = ("auto", "layer", "stream")
"""auto: rings only where they lower the peak; layer: whole tensors; stream: wherever they save bytes."""


ENDS_MAX = 8
"""Groups that are tried from one narrow place on; longer ones hold more rings for less."""

SLACK = (1.0, 1.02, 1.04, 1.06, 1.1, 1.15, 1.2, 1.3, 1.5)
"""Peaks that are tried, relative to the smallest."""


@dataclass(frozen=True)
class Walk:
    """How a group runs row by row."""

    order: bytes
    """Whose next row."""
    rings: Mapping[ValueId, int]
    """Rows alive at most of every value that the group makes."""
    lags: Mapping[tuple[ValueId, ValueId], int]
    """(made value, value of earlier): bytes that the first must begin before the second to reuse its rows."""


@dataclass(frozen=True)
class Overlap:
    """A value that takes the place of one that dies while it is made."""

    made: ValueId
    old: ValueId
    lag: int
    """Bytes by which it begins earlier."""
    saved: int


@dataclass(frozen=True)
class Group:
    """Steps that run together."""

    stages: tuple[Step, ...]
    order: bytes
    """Empty: one step, all at once."""
    after: tuple[Step, ...]
    """Updates of weights that the stages read."""
    rings: Mapping[ValueId, int]
    """Rows held of the values that no other group touches."""
    bytes: int
    """Alive while it runs."""
    overlap: Overlap | None

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them."""
        return (*self.stages, *self.after)

    @cached_property
    def summed(self) -> frozenset[str]:
        """Layers whose weight gradients are summed row by row."""
        return frozenset(step.node for step in self.stages if step.kind == "weights")

    def within(self, limit: int) -> Group:
        """Without the overlap, where there is room enough for both."""
        if self.overlap is None or self.bytes + self.overlap.saved > limit:
            return self
        return replace(self, overlap=None, bytes=self.bytes + self.overlap.saved)

    def takes(self, step: Step, use: Use) -> bool:
        """Whether a step of the group needs a value: an update has scratch, or the sums of its rows."""
        by_rows = step.kind in ("weights", "update") and step.node in self.summed
        return use.mode not in ("work", "sums") or (use.mode == "sums") == by_rows


@dataclass
class _Stage:
    """A step while it is walked."""

    step: Step
    needs: list[tuple[Rows, int]]
    """Rows of values, and the stage that makes them."""
    clears: list[tuple[int, Rows]]
    """Stages that must have read a row before this one changes it, and the rows they read."""


def walk(steps: Sequence[Step], pace: Mapping[ValueId, int]) -> Walk:
    """Plays the steps; `pace`: bytes of one row of every value."""
    return _Play(steps, pace).walk()


class _Play:
    """A group while it is played."""

    def __init__(self, steps: Sequence[Step], pace: Mapping[ValueId, int]) -> None:
        self.pace = pace
        self.stages = _stages(steps)
        self.done = [0] * len(steps)
        self.order = bytearray()
        self.readers: dict[ValueId, list[tuple[int, Rows]]] = {}
        """Who reads or changes a value, and which of its rows."""
        self.writes: list[list[ValueId]] = [[] for _ in steps]
        for number, step in enumerate(steps):
            for use in step.uses:
                if use.rows is not None and use.mode == "write":
                    self.writes[number].append(use.value)
                elif use.rows is not None:
                    self.readers.setdefault(use.value, []).append((number, use.rows))
        made = dict.fromkeys(value for values in self.writes for value in values)  # in one order in every process
        self.early = [value for value in self.readers if value not in made]
        self.rings = dict.fromkeys(made, 1)
        self.lags = {(value, old): 0 for value in made for old in self.early}
        self.eager: list[list[int]] = [[] for _ in steps]
        """Updates that take the rows of a stage as soon as they come."""
        for number, stage in enumerate(self.stages):
            if stage.step.kind == "weights":
                for _, maker in stage.needs:
                    self.eager[maker].append(number)

    def walk(self) -> Walk:
        """The last stage asks for its next row, and each stage for what it lacks; then those that are not done."""
        others = [n for n, stage in enumerate(self.stages) if stage.step.kind != "weights"]
        rest = [n for n, stage in enumerate(self.stages) if stage.step.kind == "weights"]
        for target in (*reversed(others), *rest):
            asked = [target]
            while self.done[target] < self.stages[target].step.rows:
                lacking = self._lacking(asked[-1])
                if lacking is not None:
                    asked.append(lacking)
                    continue
                self._run(asked.pop())
                if not asked:
                    asked = [target]
        return Walk(bytes(self.order), self.rings, self.lags)

    def _run(self, number: int) -> None:
        row = self.done[number]
        for value in self.writes[number]:
            needed = self._oldest(value, -1)
            self.rings[value] = max(self.rings[value], 1 if needed is None else row + 1 - needed)
            for old in self.early:
                in_place = number if _in_place(self.stages[number].step, old, self.pace, value) else -1
                first = self._oldest(old, in_place)
                if first is not None:
                    lag = (row + 1) * self.pace[value] - first * self.pace[old]
                    self.lags[value, old] = max(self.lags[value, old], lag)
        self.order.append(number)
        self.done[number] += 1
        for update in self.eager[number]:
            while self.done[update] < self.stages[update].step.rows and self._lacking(update) is None:
                self._run(update)

    def _oldest(self, value: ValueId, running: int) -> int | None:
        """First row that is read again; a stage that works in place is through with its own row."""
        first = None
        for number, rows in self.readers.get(value, ()):
            done = self.done[number]
            if done < len(rows):
                begin = rows[done][0] + (number == running)
                if first is None or begin < first:
                    first = begin
        return first

    def _lacking(self, number: int) -> int | None:
        """A stage that has to go on before this one can make its next row."""
        stage, row = self.stages[number], self.done[number]
        for rows, maker in stage.needs:
            begin, end = rows[row]
            if begin < end and self.done[maker] < end:
                return maker
        for reader, rows in stage.clears:
            done = self.done[reader]
            if done < len(rows) and rows[done][0] <= row:
                return reader
        return None


def _stages(steps: Sequence[Step]) -> list[_Stage]:
    stages = []
    maker: dict[ValueId, int] = {}
    readers: dict[ValueId, list[tuple[int, Rows]]] = {}
    for number, step in enumerate(steps):
        stage = _Stage(step, [], [])
        for use in step.uses:
            if use.rows is None:
                continue
            if use.mode != "write" and use.value in maker:
                stage.needs.append((use.rows, maker[use.value]))
            if use.mode == "change":
                stage.clears += readers.get(use.value, [])
        for use in step.uses:
            if use.mode in ("write", "change"):
                maker[use.value] = number
            elif use.mode == "read" and use.rows is not None:
                readers.setdefault(use.value, []).append((number, use.rows))
        stages.append(stage)
    return stages


def _in_place(step: Step, old: ValueId, pace: Mapping[ValueId, int], made: ValueId) -> bool:
    """Whether the step reads a row of `old` value by value, each before it writes the one in its place."""
    reads = step.in_place and pace[made] == pace[old]
    return reads and any(use.value == old and use.mode == "read" for use in step.uses)


class Planner:
    """Chooses groups for one network; what it learns about one set of candidates serves the next."""

    def __init__(self) -> None:
        self._walks: dict[tuple[object, ...], Walk] = {}

    def cuts(self, plan: Pass, schedule: str, slack: Sequence[float]) -> list[tuple[Group, ...]]:
        """Ways to cut a pass, those with the smallest peak of live bytes first."""
        return _Cut(self, plan, schedule).cuts(slack)

    def walk(self, steps: Sequence[Step], plan: Pass) -> Walk:
        """Remembered: the same steps come back with every set of candidates, which changes scratch and masks."""
        again = {use.value for step in steps if step.kind in ("again", "clamp") for use in step.uses}

        stores = plan.stores
        uses = [
            tuple(u for u in s.uses if u.rows is not None and (u.value in again or stores[u.value].kind != "mask"))
            for s in steps
        ]
        key = tuple(
            (step.kind, step.node, step.part, *((use.value, use.mode) for use in counted))
            for step, counted in zip(steps, uses, strict=True)
        )
        found = self._walks.get(key)
        if found is None:
            pace = {use.value: stores[use.value].row_bytes for counted in uses for use in counted}
            walked = [replace(step, uses=counted) for step, counted in zip(steps, uses, strict=True)]
            found = self._walks[key] = walk(walked, pace)
        return found


class _Cut:
    """One pass being cut into groups.

    Groups take time to walk, so only those are made that a best cut may have: a cut is sought with bounds of what
    they cost, the groups on it are made, and so on until all of a cut's groups are.
    """

    def __init__(self, planner: Planner, plan: Pass, schedule: str) -> None:
        self.planner, self.plan, self.schedule = planner, plan, schedule
        count = len(plan.steps)
        self.first: dict[ValueId, int] = {}
        self.last: dict[ValueId, int] = {}
        self.by_rows = dict.fromkeys(plan.stores, True)
        for number, step in enumerate(plan.steps):
            for use in step.uses:
                if use.mode in ("work", "sums"):
                    continue
                self.first.setdefault(use.value, number)
                self.last[use.value] = number
                self.by_rows[use.value] &= use.rows is not None
        self.first |= dict.fromkeys(plan.given, 0)
        self.last[plan.kept] = count - 1
        born, died = [0] * (count + 1), [0] * (count + 1)
        for name, number in self.first.items():
            born[number + 1] += plan.stores[name].bytes
            died[self.last[name] + 1] += plan.stores[name].bytes
        self.born, self.died = list(accumulate(born)), list(accumulate(died))
        self.alive = [one - other for one, other in zip(self.born, self.died, strict=True)]
        """Bytes that are needed on both sides of every place between two steps."""
        self.found: dict[Span, Group] = {}
        self.bytes = {(begin, end): max(self.alive[begin], self.alive[end]) for begin, end in self._spans()}
        """Alive in the group of every span that may be one; before it is made, at least alive."""

    def group(self, span: Span) -> Group:
        """Steps begin .. end - 1 as one group."""
        if span not in self.found:
            self.found[span] = self._group(*span)
            self.bytes[span] = self.found[span].bytes
        return self.found[span]

    def _group(self, begin: int, end: int) -> Group:
        plan, stores = self.plan, self.plan.stores
        steps = plan.steps[begin:end]
        alone = len(steps) == 1
        inner = dict.fromkeys(
            use.value
            for step in steps
            for use in step.uses
            if not alone
            and use.mode not in ("work", "sums")
            and self.first[use.value] >= begin
            and self.last[use.value] < end
            and self.by_rows[use.value]
            and use.value not in (*plan.given, plan.kept)
        )
        stages, after, summed = [], [], 0
        work = 0
        for step in steps:
            if step.kind == "update" and not alone:
                after.append(step)
                if step.uses[0].value in inner:
                    stages.append(Step("weights", step.node, step.rows, step.uses, step.back))
                    summed += sum(align(stores[u.value].bytes, 4) for u in step.uses if u.mode == "sums")
                    continue
            else:
                stages.append(step)
            work = max([work, *(stores[u.value].bytes for u in step.uses if u.mode == "work")])
        walked = None if steps[0].rows == 0 else self.planner.walk(stages, plan)
        rings = {} if walked is None else {name: min(walked.rings[name], stores[name].rows) for name in inner}
        alive = self.born[end] - self.died[begin] + work + summed
        alive -= sum((stores[name].rows - held) * stores[name].row_bytes for name, held in rings.items())
        overlap = self._overlap(begin, end, walked)
        alive -= 0 if overlap is None else overlap.saved
        order = walked.order if walked is not None and not alone else b""
        return Group(tuple(stages), order, tuple(after), rings, alive, overlap)

    def _overlap(self, begin: int, end: int, walked: Walk | None) -> Overlap | None:
        """The pair of a value born here and one that dies here that shares most bytes."""
        best = None
        steps, stores = self.plan.steps[begin:end], self.plan.stores
        updated = {step.uses[0].value for step in steps if step.kind == "update"}
        for (made, old), lag in (all_at_once(steps[0]) if walked is None else walked.lags).items():
            dies = self.first[old] <= begin <= self.last[old] < end and old not in updated
            if not dies or self.first[made] < begin or self.last[made] < end:
                continue
            bytes_ = (stores[made].bytes, stores[old].bytes)
            found = Overlap(made, old, align(lag, 4), sum(bytes_) - max(align(lag, 4) + bytes_[1], bytes_[0]))
            if self.schedule == "layer" and lag > 0:
                continue
            if found.saved > (0 if best is None else best.saved):
                best = found
        return best

    def cuts(self, slack: Sequence[float]) -> list[tuple[Group, ...]]:
        """For several limits from the smallest possible peak upwards: the cut that streams and overlaps least.

        Values that take each other's place can be laid out less freely: the smallest sum of live bytes is not
        always the smallest layout.
        """
        smallest = max((self.bytes[span] for span in self._way(self.bytes.__getitem__, max)), default=0)
        found = [self._cut(int(smallest * share)) for share in slack]
        return [cut for number, cut in enumerate(found) if cut not in found[:number]]

    def _way(self, cost: Callable[[Span], float], join: Callable[[float, float], float]) -> list[Span]:
        """The spans of the cheapest cut, whose groups are made; what others say they cost is a lower bound."""
        count = len(self.plan.steps)
        while True:
            total, before = [0.0] + [math.inf] * count, [0] * (count + 1)
            for span in self.bytes:
                begin, end = span
                found = join(total[begin], cost(span))
                if found < total[end]:
                    total[end], before[end] = found, begin
            way, end = [], count
            while end > 0:
                way.append((before[end], end))
                end = before[end]
            if all(span in self.found for span in way):
                return way[::-1]
            for span in way:
                self.group(span)

    def _cut(self, limit: int) -> tuple[Group, ...]:
        count = len(self.plan.steps)

        def cost(span: Span) -> float:
            size, lag = self.bytes[span], 0
            if size > limit:
                return math.inf
            group = self.found.get(span)
            if group is not None and group.overlap is not None:
                group = group.within(limit)
                size, lag = group.bytes, 0 if group.overlap is None else group.overlap.lag
            begin, end = span
            return lag * count + (end - begin) * (size if self.schedule == "stream" else end > begin + 1)

        return tuple(self.group(span).within(limit) for span in self._way(cost, add))

    def _spans(self) -> list[Span]:
        """What may be a group, by its end: every step alone, and what lies between two narrow places."""
        steps = self.plan.steps
        across = self._across()
        narrow = [
            place
            for place in range(len(steps) + 1)
            if across[place] <= min(across[max(0, place - 1)], across[min(len(steps), place + 1)])
        ]
        places = frozenset(narrow)
        # A sample by rows is worth it only as a ring: its step does not stand alone.
        spans = [(number, number + 1) for number, step in enumerate(steps) if step.kind != "load"]
        for begin in narrow:
            if steps[begin : begin + 2] and steps[begin].kind == "load":
                spans.append((begin, begin + 2))
            ends = 0
            for end in range(begin + 1, min(begin + STAGES_MAX, len(steps)) + 1):
                if steps[end - 1].rows == 0 or ends == ENDS_MAX:
                    break
                if end > begin + 1 and end in places:
                    spans.append((begin, end))
                    ends += 1
        if self.schedule == "layer":
            spans = [(b, e) for b, e in spans if e == b + 1 or (e == b + 2 and steps[b].kind == "load")]
        return sorted(spans, key=lambda span: (span[1], span[0]))

    def _across(self) -> list[int]:
        """For every place between two steps, bytes of tensors and gradients that are needed on both sides."""
        changes = [0] * (len(self.plan.steps) + 2)
        for name, first in self.first.items():
            store = self.plan.stores[name]
            if store.kind in ("activation", "gradient"):
                changes[first + 1] += store.bytes
                changes[self.last[name] + 1] -= store.bytes
        return list(accumulate(changes))[: len(self.plan.steps) + 1]


def all_at_once(step: Step) -> dict[tuple[ValueId, ValueId], int]:
    """As Walk.lags, for a step whose rows cannot be made one by one."""
    if not step.in_place:
        return {}
    made = [use.value for use in step.uses if use.mode == "write"]
    return {(new, use.value): 0 for new in made for use in step.uses if use.mode == "read"}
