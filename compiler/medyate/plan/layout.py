# SPDX-License-Identifier: Apache-2.0
"""Lifetimes to offsets: no two values that live at the same step share a byte.

Values are placed one after the other at the lowest offset that is free over their whole lifetime. The best of
several orders is taken; where it misses the lower bound, the largest sum of bytes alive at one step, a search
over all orders follows, which ends after a fixed number of tries: the result is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medyate.ledger import align


@dataclass(frozen=True, slots=True)
class Value:
    """Something that needs `bytes` of the planned region from step `first` to step `last` inclusive."""

    name: str
    bytes: int
    first: int
    last: int
    align: int = 4
    kind: str = "activation"
    """'activation', 'gradient', 'mask' or 'scratch': for pictures and tables."""


@dataclass(frozen=True)
class Layout:
    """Offsets by value name."""

    offsets: dict[str, int]
    peak_bytes: int
    lower_bound_bytes: int


Order = Callable[[Value], tuple[int, ...]]
ORDERS: tuple[Order, ...] = (
    lambda v: (-v.bytes, v.first),
    lambda v: (-v.bytes * (v.last - v.first + 1), v.first),
    lambda v: (-(v.last - v.first), -v.bytes),
    lambda v: (v.first, -v.bytes),
    lambda v: (-v.last, -v.bytes),
)


TRIES = 1000
"""Placements that the search may make; it is exact where it ends before, on a dozen values or so."""


def lay_out(values: Sequence[Value]) -> Layout:
    """The layout with the smallest peak that was found."""
    attempts = [_place(sorted(values, key=order)) for order in ORDERS]
    offsets, peak = min(attempts, key=lambda attempt: attempt[1])
    least = lower_bound(values)
    if peak > least:
        search = _Search(tuple(v for v in values if v.bytes > 0), offsets, peak, least)
        search.extend([], frozenset(), 0)
        offsets, peak = {**offsets, **search.offsets}, search.peak
    return Layout(offsets, peak, least)


@dataclass
class _Search:
    """Depth first over the orders in which offsets ascend: every layout that cannot be pushed down has such a one."""

    values: tuple[Value, ...]
    offsets: dict[str, int]
    peak: int
    least: int
    tries: int = 0

    def extend(self, placed: list[tuple[int, Value]], names: frozenset[str], peak: int) -> None:
        """Tries every value next, the lowest and largest first."""
        if len(placed) == len(self.values):
            self.offsets, self.peak = {value.name: offset for offset, value in placed}, peak
            return
        last = placed[-1][0] if placed else 0
        options = []
        for value in self.values:
            if value.name in names:
                continue
            self.tries += 1
            below = (start + other.bytes for start, other in placed if _meet(value, other))
            offset = align(max(below, default=0), value.align)
            if offset + value.bytes >= self.peak:  # it only gets higher from here on
                return
            if offset >= last:
                options.append((offset, -value.bytes, value))
        for offset, _, value in sorted(options, key=lambda option: option[:2]):
            if self.tries > TRIES or self.peak == self.least:
                return
            placed.append((offset, value))
            self.extend(placed, names | {value.name}, max(peak, offset + value.bytes))
            placed.pop()


def _meet(a: Value, b: Value) -> bool:
    return a.first <= b.last and b.first <= a.last


def lower_bound(values: Sequence[Value]) -> int:
    """Largest sum of live bytes over the steps."""
    changes: dict[int, int] = {}
    for value in values:
        changes[value.first] = changes.get(value.first, 0) + value.bytes
        changes[value.last + 1] = changes.get(value.last + 1, 0) - value.bytes
    live = largest = 0
    for step in sorted(changes):
        live += changes[step]
        largest = max(largest, live)
    return largest


def _place(values: Sequence[Value]) -> tuple[dict[str, int], int]:
    placed: list[tuple[int, int, Value]] = []
    offsets: dict[str, int] = {}
    peak = 0
    for value in values:
        if value.bytes == 0:
            offsets[value.name] = 0
            continue
        offset = 0
        for start, end, other in placed:  # ascending by start
            if not _meet(value, other):
                continue
            if start - offset >= value.bytes:
                break
            offset = max(offset, align(end, value.align))
        offsets[value.name] = offset
        entry = (offset, offset + value.bytes, value)
        position = sum(1 for start, _, _ in placed if start < offset)
        placed.insert(position, entry)
        peak = max(peak, offset + value.bytes)
    return offsets, peak
