# SPDX-License-Identifier: Apache-2.0
"""Lifetimes to offsets: no two values that live at the same step share a byte.

Values are placed one after the other at the lowest offset that is free over their whole lifetime.
The best of several orders is taken; the lower bound is the largest sum of bytes alive at one step.
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


def lay_out(values: Sequence[Value]) -> Layout:
    """The layout with the smallest peak among the orders."""
    attempts = [_place(sorted(values, key=order)) for order in ORDERS]
    offsets, peak = min(attempts, key=lambda attempt: attempt[1])
    return Layout(offsets, peak, lower_bound(values))


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
            if other.first > value.last or other.last < value.first:
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
