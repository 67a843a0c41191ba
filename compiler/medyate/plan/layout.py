# SPDX-License-Identifier: Apache-2.0
"""Lifetimes to offsets: no two values that live at the same step share a byte.

Values are placed one after the other at the lowest offset that is free over their whole lifetime. The best of
several orders is taken; where it misses the lower bound, the largest sum of bytes alive at one step, a search
over all orders follows, which ends after a fixed number of tries: the result is the same everywhere.
"""

from __future__ import annotations

import random
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
    over: str = ""
    """A value that dies in the step in which this one is born, and whose place it takes ..."""
    lag: int = 0
    """... beginning so many bytes before it."""


@dataclass(frozen=True)
class Layout:
    """Offsets by value name."""

    offsets: dict[str, int]
    peak_bytes: int
    lower_bound_bytes: int


@dataclass(frozen=True)
class _Body:
    """Values whose offsets hang together: each begins `lag` bytes before the one whose place it takes."""

    parts: tuple[tuple[int, Value], ...]
    """(offset within the body, value)."""

    @property
    def bytes(self) -> int:
        return max(offset + value.bytes for offset, value in self.parts)

    @property
    def first(self) -> int:
        return min(value.first for _, value in self.parts)

    @property
    def last(self) -> int:
        return max(value.last for _, value in self.parts)

    @property
    def align(self) -> int:
        return max(value.align for _, value in self.parts)


Order = Callable[[_Body], tuple[int, ...]]
ORDERS: tuple[Order, ...] = (
    lambda v: (-v.bytes, v.first),
    lambda v: (-v.bytes * (v.last - v.first + 1), v.first),
    lambda v: (-(v.last - v.first), -v.bytes),
    lambda v: (v.first, -v.bytes),
    lambda v: (-v.last, -v.bytes),
)


TRIES = 1000
"""Placements that the search may make; it is exact where it ends before, on a dozen values or so. The
climb changes the order as often, or less where there are many values."""


def lay_out(values: Sequence[Value], tries: int = TRIES) -> Layout:
    """The layout with the smallest peak that was found."""
    bodies = _bodies(values)
    attempts = [_place(sorted(bodies, key=order)) for order in ORDERS]
    offsets, peak = min(attempts, key=lambda attempt: attempt[1])
    least = lower_bound(values)
    if peak > least and tries > 0:
        search = _Search(tuple(body for body in bodies if body.bytes > 0), offsets, peak, least, tries)
        search.extend([], 0, frozenset(), 0)
        offsets, peak = {**offsets, **search.offsets}, search.peak
    if peak > least and tries > 0:
        climb = _Climb(bodies)
        numbers = sorted(range(len(climb.bodies)), key=lambda n: offsets[climb.bodies[n].parts[0][1].name])
        climbed, height = climb.climb(numbers, least, tries * 250 // max(250, len(numbers)))
        if height < peak:
            offsets, peak = {**offsets, **climbed}, height
    return Layout(offsets, peak, least)


def _bodies(values: Sequence[Value]) -> list[_Body]:
    """Values in chains of places taken over, and all others alone."""
    start = {value.name: (value.name, 0) for value in values}
    for value in sorted((v for v in values if v.over), key=lambda v: v.first):
        root, offset = start[value.over]
        start[value.name] = root, offset - value.lag
    chains: dict[str, list[tuple[int, Value]]] = {}
    for value in values:
        root, offset = start[value.name]
        chains.setdefault(root, []).append((offset, value))
    bodies = []
    for chain in chains.values():
        lowest = min(offset for offset, _ in chain)
        bodies.append(_Body(tuple((offset - lowest, value) for offset, value in chain)))
    return bodies


@dataclass
class _Search:
    """Depth first over the orders in which offsets ascend: every layout that cannot be pushed down has such a one."""

    bodies: tuple[_Body, ...]
    offsets: dict[str, int]
    peak: int
    least: int
    most: int
    tries: int = 0

    def extend(self, placed: list[tuple[int, Value]], last: int, done: frozenset[int], peak: int) -> None:
        """Tries every body next, the lowest and largest first."""
        if len(done) == len(self.bodies):
            self.offsets, self.peak = {value.name: offset for offset, value in placed}, peak
            return
        options = []
        for number, body in enumerate(self.bodies):
            if number in done:
                continue
            self.tries += 1
            above = (
                start + other.bytes - offset
                for offset, value in body.parts
                for start, other in placed
                if _meet(value, other)
            )
            base = align(max(above, default=0), body.align) if placed else 0
            base = max(base, 0)
            if base + body.bytes >= self.peak:  # it only gets higher from here on
                return
            if base >= last:
                options.append((base, -body.bytes, number))
        for base, _, number in sorted(options):
            if self.tries > self.most or self.peak == self.least:
                return
            body = self.bodies[number]
            placed.extend((base + offset, value) for offset, value in body.parts)
            self.extend(placed, base, done | {number}, max(peak, base + body.bytes))
            del placed[-len(body.parts) :]


def _meet(a: Value, b: Value) -> bool:
    return a.first <= b.last and b.first <= a.last


def lower_bound(values: Sequence[Value]) -> int:
    """Largest sum of bytes alive at one step; what takes another value's place counts once."""
    by_name = {value.name: value for value in values}
    changes: dict[int, int] = {}
    for value in values:
        changes[value.first] = changes.get(value.first, 0) + value.bytes
        changes[value.last + 1] = changes.get(value.last + 1, 0) - value.bytes
        if value.over:
            old = by_name[value.over]
            shared = value.bytes + old.bytes - max(value.lag + old.bytes, value.bytes)
            changes[value.first] -= shared
            changes[value.first + 1] = changes.get(value.first + 1, 0) + shared
    live = largest = 0
    for step in sorted(changes):
        live += changes[step]
        largest = max(largest, live)
    return largest


class _Climb:
    """Changes the order in which bodies are placed, as long as the layout does not grow.

    A body that ends at the peak changes its turn with one that it meets; the random choices come from a fixed seed.
    """

    def __init__(self, bodies: Sequence[_Body]) -> None:
        self.bodies = [body for body in bodies if body.bytes > 0]
        self.meets: list[list[tuple[int, int, int]]] = [[] for _ in self.bodies]
        """Per body: (another, what its base minus one's own is strictly between)."""
        for one, body in enumerate(self.bodies):
            for two, other in enumerate(self.bodies):
                pairs = [(a, b) for a in body.parts for b in other.parts if one != two and _meet(a[1], b[1])]
                for (mine, value), (theirs, known) in pairs:
                    self.meets[one].append((two, theirs - mine - value.bytes, theirs - mine + known.bytes))

    def place(self, order: Sequence[int], known: Sequence[int], start: int) -> list[int]:
        """Base of every body; `known`: those of the first `start` in order."""
        bases = [-1] * len(self.bodies)
        for number in order[:start]:
            bases[number] = known[number]
        for number in order[start:]:
            taken = sorted(
                (bases[other] + below, bases[other] + above)
                for other, below, above in self.meets[number]
                if bases[other] >= 0
            )
            base, unit = 0, self.bodies[number].align
            for below, above in taken:
                if below >= base:
                    break
                base = max(base, align(above, unit))
            bases[number] = base
        return bases

    def climb(self, order: Sequence[int], least: int, turns: int) -> tuple[dict[str, int], int]:
        """(offsets, peak) after so many turns, or at the lower bound."""
        chance = random.Random(0)
        best, bases = list(order), self.place(order, (), 0)
        peak = self.peak(bases)
        for _ in range(turns):
            if peak <= least:
                break
            tops = [n for n, body in enumerate(self.bodies) if bases[n] + body.bytes == peak]
            one = chance.choice(tops)
            near = [other for other, _, _ in self.meets[one]]
            if not near:
                break
            two = chance.choice(near)
            if chance.random() < 0.5:  # one step further away
                two = chance.choice([other for other, _, _ in self.meets[two]])
            tried = list(best)
            a, b = tried.index(one), tried.index(two)
            tried[a], tried[b] = tried[b], tried[a]
            found = self.place(tried, bases, min(a, b))
            if self.peak(found) <= peak:
                best, bases, peak = tried, found, self.peak(found)
        offsets = {v.name: bases[n] + o for n, body in enumerate(self.bodies) for o, v in body.parts}
        return offsets, peak

    def peak(self, bases: Sequence[int]) -> int:
        """Highest end."""
        return max((base + body.bytes for base, body in zip(bases, self.bodies, strict=True)), default=0)


def _place(bodies: Sequence[_Body]) -> tuple[dict[str, int], int]:
    placed: list[tuple[int, int, Value]] = []
    offsets: dict[str, int] = {}
    peak = 0
    for body in bodies:
        taken = sorted(
            (start - offset - value.bytes, end - offset)
            for offset, value in body.parts
            for start, end, other in placed
            if value.bytes > 0 and _meet(value, other)
        )
        base = 0
        for below, above in taken:  # bases strictly between the two are taken
            if below >= base:
                break
            base = max(base, align(above, body.align))
        for offset, value in body.parts:
            offsets[value.name] = base + offset if value.bytes else 0
            if value.bytes:
                placed.append((base + offset, base + offset + value.bytes, value))
                peak = max(peak, base + offset + value.bytes)
    return offsets, peak
