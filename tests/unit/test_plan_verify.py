# SPDX-License-Identifier: Apache-2.0
"""A layout that does not carry its steps is found, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

import nets
from medyate.errors import PlanError
from medyate.frontends.torch import from_module
from medyate.kernel_room import BAND
from medyate.passes.pipeline import normalise
from medyate.plan.ids import ValueId
from medyate.plan.layout import Layout
from medyate.plan.plan import classes_loss
from medyate.plan.recompute import Blocks
from medyate.plan.schedule import Schedule, make_schedule
from medyate.plan.steps import Pass, training_pass
from medyate.plan.stream import Group
from medyate.plan.verify import verify
from medyate.plan.workspace import Key, Workspace, workspaces
from medyate.quantize.apply import quantize
from medyate.rank.lara import channel_costs


@dataclass(frozen=True)
class Planned:
    """Steps, their groups, and where values lie."""

    schedule: Schedule
    layout: Layout
    workspaces: Mapping[Key, Workspace]

    def verify(self) -> None:
        verify(self.schedule, self.layout, self.workspaces)

    def group(self, fits: Callable[[Group], bool]) -> tuple[int, Group]:
        """The first group that fits, and its number."""
        return next((number, group) for number, group in enumerate(self.schedule.groups) if fits(group))

    def with_group(self, number: int, group: Group) -> Planned:
        groups = list(self.schedule.groups)
        groups[number] = group
        return replace(self, schedule=replace(self.schedule, groups=tuple(groups)))

    def moved(self, value: ValueId, to: int) -> Planned:
        return replace(self, layout=replace(self.layout, offsets={**self.layout.offsets, value: to}))

    def place(self, value: ValueId) -> int:
        return self.layout.offsets[self.schedule.places.get(value, value)]

    def find(self, kind: str, mode: str = "write") -> ValueId:
        """The largest value that such a step has in this mode."""
        steps = [step for group in self.schedule.groups for step in group.steps if step.kind == kind]
        values = [use.value for step in steps for use in step.uses if use.mode == mode]
        return max((v for v in values if v in self.layout.offsets), key=lambda v: self.schedule.plan.stores[v].bytes)


@pytest.fixture(scope="module")
def passes() -> dict[str, Pass]:
    """Every layer a candidate; 'again': masks are made once more; 'rows': the sample comes row by row."""
    normal = normalise(from_module(*nets.build("mobilenet_v2"), "net"))
    noise = np.random.default_rng(0).normal(size=(2, *normal.graph.shapes[normal.graph.input])).astype(np.float32)
    quantised = quantize(normal.graph, normal.weights, noise)
    layers = dict.fromkeys(list(channel_costs(normal.graph))[3:], 4)
    blocks = Blocks(quantised[0].graph, layers)
    choice = blocks.choices()[-1]
    assert choice.segments
    made = {
        "plain": training_pass(*quantised, layers, classes_loss(10), 8),
        "biases": training_pass(*quantised, layers, classes_loss(10), 16, biases=tuple(layers)),
        "again": training_pass(*quantised, layers, classes_loss(10), 8, blocks.reruns(choice)),
        "rows": training_pass(*quantised, layers, classes_loss(10), 8, by_rows=True),
    }
    assert any(step.kind == "again" for step in made["again"].steps)
    return made


@pytest.fixture(scope="module")
def planned(passes: dict[str, Pass]) -> Planned:
    made = make_schedule(passes["again"], "stream")
    return Planned(*made, workspaces(*made))


@pytest.mark.parametrize("schedule", ["auto", "layer", "stream"])
@pytest.mark.parametrize("name", ["plain", "biases", "again", "rows"])
def test_what_the_planner_makes_is_right(passes: dict[str, Pass], name: str, schedule: str) -> None:
    made = make_schedule(passes[name], schedule)
    verify(*made, workspaces(*made))


def overlapping(planned: Planned) -> Planned:
    """A gradient begins four bytes early or late, into a neighbour that is there before it and read after it."""
    offsets = planned.layout.offsets
    for one in (value for value in planned.schedule.values if value.kind == "gradient"):
        for other in planned.schedule.values:
            if other.bytes > 0 and other.first < one.first <= one.last < other.last:
                if offsets[one.name] + one.bytes == offsets[other.name]:
                    return planned.moved(one.name, offsets[one.name] + 4)
                if offsets[other.name] + other.bytes == offsets[one.name]:
                    return planned.moved(one.name, offsets[one.name] - 4)
    raise AssertionError("no gradient has such a neighbour")


def short_ring(planned: Planned) -> Planned:
    number, group = planned.group(lambda g: any(rows > 1 for rows in g.rings.values()))
    ring = max(group.rings, key=lambda v: group.rings[v])
    return planned.with_group(number, replace(group, rings={**group.rings, ring: group.rings[ring] - 1}))


def late_group(planned: Planned) -> Planned:
    """The first group runs after the second, which reads what it makes."""
    one, two, *rest = planned.schedule.groups
    return replace(planned, schedule=replace(planned.schedule, groups=(two, one, *rest)))


def early_row(planned: Planned) -> Planned:
    """In a stream, the last stage's first row comes first."""
    number, group = planned.group(lambda g: len(g.stages) > 1 and len(g.order) > 4)
    last = len(group.stages) - 1
    order = bytes([last]) + group.order.replace(bytes([last]), b"", 1)
    return planned.with_group(number, replace(group, order=order))


def missing_row(planned: Planned) -> Planned:
    number, group = planned.group(lambda g: len(g.order) > 4)
    return planned.with_group(number, replace(group, order=group.order[:-1]))


def low_overlap(planned: Planned) -> Planned:
    """An output that takes an input's place begins too late: its rows reach into some that are still read."""
    group = next(g for g in planned.schedule.groups if g.overlap is not None and g.overlap.lag > 0)
    assert group.overlap is not None
    return planned.moved(group.overlap.made, planned.place(group.overlap.made) + group.overlap.lag)


def scratch_in_the_way(planned: Planned) -> Planned:
    number, group = planned.group(lambda g: any(s.kind == "input" for s in g.stages))
    step = next(s for s in group.stages if s.kind == "input")
    return planned.moved(ValueId("place", number=number), planned.place(step.uses[0].value))


def outside(planned: Planned) -> Planned:
    return replace(planned, layout=replace(planned.layout, peak_bytes=planned.layout.peak_bytes - 1))


def below(planned: Planned) -> Planned:
    return planned.moved(planned.find("run"), -4)


def lost_logits(planned: Planned) -> Planned:
    """Nothing reads them in the training; the host does, after it."""
    return planned.moved(ValueId("logits"), planned.place(planned.find("input")))


def lost_mask(planned: Planned) -> Planned:
    """A mask that lies where its own tensor does."""
    step = next(
        s for s in planned.schedule.plan.steps if s.kind == "run" and any(u.value.kind == "mask" for u in s.uses)
    )
    mask = next(use.value for use in step.uses if use.value.kind == "mask")
    output = next(use.value for use in step.uses if use.mode == "write" and use.value != mask)
    return planned.moved(mask, planned.place(output))


def lost_sums(planned: Planned) -> Planned:
    """Weight gradients that are summed row by row lie where the rows do."""
    step = next(s for g in planned.schedule.groups for s in g.stages if s.kind == "weights")
    sums = next(use.value for use in step.uses if use.mode == "sums")
    return planned.moved(sums, planned.place(step.uses[0].value))


def without_a_rerun(planned: Planned) -> Planned:
    """What is to be made again is not."""
    number, group = planned.group(lambda g: any(s.kind == "again" for s in g.stages))
    last = max(n for n, stage in enumerate(group.stages) if stage.kind == "again")
    order = bytes(n - (n > last) for n in group.order if n != last)
    stages = tuple(stage for n, stage in enumerate(group.stages) if n != last)
    return planned.with_group(number, replace(group, stages=stages, order=order))


def with_workspace(planned: Planned, key: Key, **changes: int) -> Planned:
    return replace(planned, workspaces={**planned.workspaces, key: replace(planned.workspaces[key], **changes)})


def workspace_too_large(planned: Planned) -> Planned:
    """One that ends in the midst of a tensor goes on for eight bytes."""
    peak = planned.layout.peak_bytes
    key, free = next((k, w) for k, w in planned.workspaces.items() if w.bytes > 0 and w.offset + w.bytes + 8 < peak)
    return with_workspace(planned, key, bytes=free.bytes + 8)


def workspace_in_the_scratch(planned: Planned) -> Planned:
    """It lies where a layer's sums begin."""
    steps = {(s.kind, s.node, s.part): s for group in planned.schedule.groups for s in group.stages}
    uses = [(key, use) for key in planned.workspaces for use in steps[key].uses if use.mode == "work"]
    key, use = uses[0]
    return with_workspace(planned, key, offset=planned.place(use.value), bytes=8)


def band_in_a_ring(planned: Planned) -> Planned:
    """More rows are made together than memory holds."""
    rings = planned.schedule.rings
    keys = [
        (s.kind, s.node, s.part)
        for group in planned.schedule.groups
        for s in group.stages
        if any(use.mode == "write" and rings.get(use.value, BAND) < BAND for use in s.uses)
    ]
    return with_workspace(planned, next(key for key in keys if key in planned.workspaces), band=BAND)


FAULTS = (
    overlapping,
    short_ring,
    late_group,
    early_row,
    missing_row,
    low_overlap,
    scratch_in_the_way,
    outside,
    below,
    lost_logits,
    lost_mask,
    lost_sums,
    without_a_rerun,
    workspace_too_large,
    workspace_in_the_scratch,
    band_in_a_ring,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_a_planted_fault_is_found(planned: Planned, fault: Callable[[Planned], Planned]) -> None:
    planned.verify()
    wrong = fault(planned)
    with pytest.raises(PlanError, match="memory plan is wrong"):
        wrong.verify()


def test_any_two_values_that_live_at_once_and_share_a_byte_are_found(planned: Planned) -> None:
    """Random pairs of the layout's own lifetimes; chains that take each other's place aside."""
    random = np.random.default_rng(5)
    values = [value for value in planned.schedule.values if value.bytes > 0]
    tied = {value.name for value in values if value.over} | {value.over for value in values}
    free = [value for value in values if value.name not in tied and value.kind != "scratch"]
    tried = 0
    while tried < 60:
        one, two = (free[int(i)] for i in random.integers(0, len(free), 2))
        if one is two or one.first > two.last or two.first > one.last:
            continue
        tried += 1
        begin = planned.layout.offsets[two.name]
        wrong = planned.moved(one.name, begin + 4 * int(random.integers(0, -(-two.bytes // 4))))
        if wrong.layout.offsets[one.name] + one.bytes > wrong.layout.peak_bytes:
            continue
        with pytest.raises(PlanError):
            wrong.verify()
