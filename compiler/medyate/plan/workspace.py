# SPDX-License-Identifier: Apache-2.0
"""What of the planned region is free while a step runs: kernels work there. No training takes more memory for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medyate.ir import Graph
from medyate.kernel_room import BAND, KERNEL_SHARE
from medyate.ledger import align
from medyate.ops import OPS
from medyate.plan.ids import ValueId
from medyate.plan.layout import Layout
from medyate.plan.schedule import Schedule
from medyate.plan.steps import Step
from medyate.plan.stream import Group

Key = tuple[str, str, int]
"""(kind, node, number of the rerun) of a step."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Of one step."""

    offset: int
    """A multiple of 8."""
    bytes: int
    band: int
    """Rows that may be made at once: of whole tensors of which none takes another's place."""


def key(step: Step) -> Key:
    """Where a step's workspace is found."""
    return step.kind, step.node, step.part


def workspaces(schedule: Schedule, layout: Layout) -> Mapping[Key, Workspace]:
    """Of every step forward and every gradient: the largest part of the region that is free meanwhile."""
    found = {}
    for number, group in enumerate(schedule.groups):
        begin, end = _largest_gap(schedule, layout, number)
        for step in group.stages:
            if step.kind in ("run", "again", "input", "weights", "update"):
                found[key(step)] = Workspace(begin, end - begin, _band(schedule, group, step))
    return found


def missing_bytes(schedule: Schedule, layout: Layout, graph: Graph, sums: Mapping[str, int]) -> int:
    """What the region would have to be larger by for no kernel to lack room.

    `sums`: bytes of all weight gradients of a layer, as sums.
    """
    nodes, missing = {node.name: node for node in graph}, 0
    for at, free in workspaces(schedule, layout).items():
        kind, node = "run" if at[0] == "again" else at[0], nodes[at[1]]
        kernel = OPS[node.op].kernel
        if kind in ("weights", "update"):
            wanted = KERNEL_SHARE + (sums.get(node.name, 0) if kind == "update" else 0)
        else:
            wanted = 0 if kernel is None else kernel.workspace(node.attrs, graph.input_shapes(node), kind)
        if wanted > free.bytes:
            beyond = free.offset if free.offset + free.bytes == layout.planned_bytes else align(layout.planned_bytes, 8)
            missing = max(missing, align(beyond + wanted - layout.planned_bytes, 8))
    return missing


def _largest_gap(schedule: Schedule, layout: Layout, number: int) -> tuple[int, int]:
    """First byte, and one past the last, of what no value of a group takes; the first a multiple of 8."""
    taken = sorted(
        (layout.offsets[value.name], layout.offsets[value.name] + value.bytes)
        for value in schedule.values
        if value.first <= number <= value.last
    )
    begin, gaps = 0, []
    for first, end in [*taken, (layout.planned_bytes, layout.planned_bytes)]:
        gaps.append((begin, max(begin, first)))
        begin = max(begin, align(end, 8))
    return max(gaps, key=lambda gap: gap[1] - gap[0])


def _band(schedule: Schedule, group: Group, step: Step) -> int:
    if step.kind not in ("run", "again", "input"):
        return 1
    rows = [use.value for use in step.uses if use.mode in ("read", "write") and _has_rows(use.value)]
    whole = all(schedule.rows(value) == schedule.plan.stores[value].rows for value in rows)
    return BAND if whole and not group.order and group.overlap is None else 1


def _has_rows(value: ValueId) -> bool:
    return value.kind in ("tensor", "again", "gradient", "mask")
