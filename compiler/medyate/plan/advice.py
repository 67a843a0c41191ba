# SPDX-License-Identifier: Apache-2.0
"""What makes the peak of a plan, and what would lower it: every alternative is planned, none is guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from medyate.ledger import align
from medyate.plan.budget import NOTHING, Limits, Network, Row, Scores, Way, can_come_by_rows, measure
from medyate.plan.layout import live_bytes
from medyate.plan.plan import Plan, phase
from medyate.plan.recompute import Blocks
from medyate.rank.lara import Ranking


@dataclass(frozen=True)
class Alternative:
    """Another plan, and what it would change."""

    change: str
    saved_bytes: int
    """Of the planned and state regions; below zero: it takes more."""
    planned_bytes: int
    b_mem_bytes: int
    """The budget under the same limit."""
    macs: int
    """Multiply-adds that a training step makes more."""

    def to_json(self) -> dict[str, Any]:
        """As `plan --json` prints it."""
        return asdict(self)


def peak(plan: Plan) -> dict[str, Any]:
    """The group of steps with most live bytes, and the values alive in it, the largest first."""
    values = plan.schedule.values
    live = live_bytes(values)
    at = live.index(max(live))
    group = plan.schedule.groups[at]
    alive = sorted((v for v in values if v.first <= at <= v.last), key=lambda v: -v.bytes)
    shared = {v.name for v in alive if v.over and v.first == at} & {v.name for v in alive}
    return {
        "group": at,
        "phase": phase(group.stages[0]),
        "steps": [f"{step.kind} {step.node}" for step in group.steps],
        "bytes": live[at],
        "values": [
            {"name": str(v.name), "kind": v.kind, "bytes": v.bytes, "over": str(v.over) if v.name in shared else ""}
            for v in alive
            if v.bytes > 0
        ],
    }


def alternatives(
    network: Network, ranking: Ranking, plan: Plan, progress: Callable[[int, int], None]
) -> tuple[Alternative, ...]:
    """What could be done otherwise, the most saving first; what saves nothing is left out."""
    row, limits = plan.row, plan.limits
    assert row is not None
    ranked = limits.candidates(ranking)
    tried = _tried(network, ranked, row, limits)
    found = []
    for number, (change, layers, allowed, way) in enumerate(tried):
        progress(number, len(tried))
        scores = allowed.candidates(ranking)[:layers]
        least = measure(network, scores, allowed, way, careful=False)
        if _fixed(least) >= _fixed(row):  # no layout is smaller
            continue
        there = measure(network, scores, allowed, way)
        saved = _fixed(row) - _fixed(there)
        macs = there.way.repeats.macs - row.way.repeats.macs
        found.append(Alternative(change, saved, there.planned_bytes, max(0, there.b_mem_bytes), macs))
    progress(len(tried), len(tried))
    saving: list[Alternative] = []
    for other in sorted(found, key=lambda a: (-a.saved_bytes, len(a.change))):
        # Two changes that save no more than one of them are not worth naming.
        if other.saved_bytes > 0 and not any(other.change.startswith(a.change) for a in saving):
            saving.append(other)
    return tuple(saving)


def _fixed(row: Row) -> int:
    """What the records do not take."""
    return align(row.planned_bytes, 8) + row.state_bytes


def _tried(network: Network, ranked: Scores, row: Row, limits: Limits) -> Sequence[tuple[str, int, Limits, Way]]:
    """(what is changed, layers, limits, way) of every alternative to a row."""
    way, layers = row.way, row.layers
    tried: list[tuple[str, int, Limits, Way]] = []
    rows = not way.by_rows and can_come_by_rows(network.qgraph.graph)
    if rows:
        tried.append(("--sample rows", layers, limits, replace(way, by_rows=True)))
    choices = Blocks(network.qgraph.graph, limits.trained(ranked[:layers])).choices()
    if way.repeats == NOTHING and choices[-1] != NOTHING:
        lean = replace(way, repeats=choices[-1])
        tried.append(("--recompute auto", layers, limits, lean))
        if rows:
            tried.append(("--recompute auto --sample rows", layers, limits, replace(lean, by_rows=True)))
    tried += [
        (f"--schedule {name}", layers, replace(limits, schedule=name), way)
        for name in {"layer": ("auto", "stream"), "auto": ("stream",), "stream": ("auto",)}[limits.schedule]
    ]
    if limits.grad_bits == 16:
        tried.append(("--grad-bits 8", layers, replace(limits, grad_bits=8), way))
    if limits.batch > 1 and layers > 0:
        tried.append(("--batch 1", layers, replace(limits, batch=1), way))
    if layers > 1 and not limits.selecting.given:
        tried.append((f"{layers - 1} layers instead of {layers}", layers - 1, limits, replace(way, repeats=NOTHING)))
    return tried
