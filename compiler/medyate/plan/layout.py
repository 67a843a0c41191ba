# SPDX-License-Identifier: Apache-2.0
"""Lifetimes to offsets: no two values that live at the same step share a byte.

Values are placed one after the other at the lowest offset that is free over their whole lifetime. The best of
several orders is taken; where it misses the lower bound, the largest sum of bytes alive at one step, few values are
searched in all orders. Otherwise they are squeezed below lower and lower limits, long-lived ones from the bottom and
short-lived ones from the limit down, and what is still far from the bound is climbed down by changing the order. All
of this ends after a fixed number of tries: the result is the same everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add

import numpy as np
from numpy.typing import NDArray

from medyate import cache
from medyate.ledger import align
from medyate.plan.ids import ValueId


@dataclass(frozen=True, slots=True)
class Value:
    """Something that needs `bytes` of the planned region from step `first` to step `last` inclusive."""

    name: ValueId
    bytes: int
    first: int
    last: int
    align: int = 4
    kind: str = "activation"
    """'activation', 'gradient', 'mask' or 'scratch': for pictures and tables."""
    over: ValueId | None = None
    """A value that dies in the step in which this one is born, and whose place it takes ..."""
    lag: int = 0
    """... beginning so many bytes before it."""


@dataclass(frozen=True)
class Layout:
    """Offsets of values."""

    offsets: dict[ValueId, int]
    peak_bytes: int
    """One past the last byte that a value takes."""
    lower_bound_bytes: int
    extra_bytes: int = 0
    """Behind that, for kernels to work in."""

    @property
    def planned_bytes(self) -> int:
        """The planned region."""
        return self.peak_bytes + self.extra_bytes


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


Bases = NDArray[np.int64]

ENDLESS = 1 << 48
"""A limit that no layout reaches."""

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
SQUEEZES = 20
"""Values that take their turn earlier before a limit counts as too low."""
SHORT = 8
"""Values are short-lived that live for this fraction of all steps."""
GRAIN = 1000
"""The smallest limit is found to this fraction of the lower bound."""
MANY = 150
"""Of more values than so many, the climb starts from the squeezed layout alone, and ..."""
CLOSE = 1.002
"""... not from one that is this near to the lower bound."""
IDLE = 15000
"""Changes that the climb makes without coming lower, times values, before it ends ..."""
NEAR = 1.03
"""... this near to the lower bound."""


FEW = 32
"""Values among which the search looks; with more of them it would end before it found anything."""


def lay_out(values: Sequence[Value], tries: int = TRIES) -> Layout:
    """The layout with the smallest peak that was found, or is kept."""

    def make() -> dict[str, NDArray[np.int64]]:
        offsets = _place(values, tries)
        return {"offsets": np.array([offsets[value.name] for value in values], np.int64)}

    number = {value.name: i for i, value in enumerate(values)}
    facts = [(v.bytes, v.first, v.last, v.align, v.lag, -1 if v.over is None else number[v.over]) for v in values]
    found = cache.kept("layout", (facts, tries), make)["offsets"].tolist()
    offsets = {value.name: offset for value, offset in zip(values, found, strict=True)}
    peak = max((offsets[value.name] + value.bytes for value in values), default=0)
    return Layout(offsets, peak, lower_bound(values))


def _place(values: Sequence[Value], tries: int) -> dict[ValueId, int]:
    """Offsets of a layout."""
    placer = _Placer(_bodies(values))
    bodies, numbers = placer.bodies, range(len(placer.bodies))
    orders = [sorted(numbers, key=lambda n: order(bodies[n])) for order in ORDERS]
    attempts = [placer.place(order) for order in orders]
    bases = min(attempts, key=placer.peak)
    least = lower_bound(values)
    if placer.peak(bases) > least and tries > 0 and len(bodies) <= FEW:
        search = _Search(tuple(bodies), bases, placer.peak(bases), least, tries)
        search.extend([], 0, frozenset(), 0)
        bases = search.bases
    if placer.peak(bases) > least and tries > 0:
        many, squeezed = len(bodies) > MANY, placer.squeeze(bases, least)
        starts = [squeezed] if many else [squeezed, bases]
        bases = squeezed
        for start in starts:
            if placer.peak(bases) > (CLOSE * least if many else least):
                climbed = placer.climb(placer.ascending(start), least, tries * 250 // max(250, len(bodies)))
                bases = min(bases, climbed, key=placer.peak)
    offsets = {value.name: 0 for value in values}
    return offsets | {v.name: int(bases[n]) + offset for n, body in enumerate(bodies) for offset, v in body.parts}


def _bodies(values: Sequence[Value]) -> list[_Body]:
    """Values in chains of places taken over, and all others alone."""
    start = {value.name: (value.name, 0) for value in values}
    for value in sorted((v for v in values if v.over), key=lambda v: v.first):
        assert value.over is not None
        root, offset = start[value.over]
        start[value.name] = root, offset - value.lag
    chains: dict[ValueId, list[tuple[int, Value]]] = {}
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
    bases: Bases
    peak: int
    least: int
    most: int
    tries: int = 0

    def extend(self, placed: list[tuple[int, int]], last: int, done: frozenset[int], peak: int) -> None:
        """Tries every body next, the lowest and largest first. `placed`: numbers and bases."""
        if len(done) == len(self.bodies):
            self.bases, self.peak = np.array([base for _, base in sorted(placed)]), peak
            return
        options = []
        for number, body in enumerate(self.bodies):
            if number in done:
                continue
            self.tries += 1
            above = (
                base + offset + other.bytes - own
                for own, value in body.parts
                for placed_number, base in placed
                for offset, other in self.bodies[placed_number].parts
                if _meet(value, other)
            )
            base = max(0, align(max(above, default=0), body.align))
            if base + body.bytes >= self.peak:  # it only gets higher from here on
                return
            if base >= last:
                options.append((base, -body.bytes, number))
        for base, _, number in sorted(options):
            if self.tries > self.most or self.peak == self.least:
                return
            placed.append((number, base))
            self.extend(placed, base, done | {number}, max(peak, base + self.bodies[number].bytes))
            placed.pop()


def _meet(a: Value, b: Value) -> bool:
    return a.first <= b.last and b.first <= a.last


def lower_bound(values: Sequence[Value]) -> int:
    """Largest sum of bytes alive at one step."""
    return max(live_bytes(values), default=0)


def live_bytes(values: Sequence[Value]) -> list[int]:
    """Sum of bytes alive at every step; what takes another value's place counts once."""
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
    steps = range(max((value.last for value in values), default=-1) + 1)
    return list(accumulate(changes.get(step, 0) for step in steps))


class _Placer:
    """Bodies one after the other, each at the lowest base that is free; and the order changed to lower the peak."""

    def __init__(self, bodies: Sequence[_Body]) -> None:
        self.bodies = [body for body in bodies if body.bytes > 0]
        self.sizes = [body.bytes for body in self.bodies]
        self.units = [body.align for body in self.bodies]
        met: list[list[tuple[int, int, int]]] = [[] for _ in self.bodies]
        spans = [(body.first, body.last) for body in self.bodies]
        for one, body in enumerate(self.bodies):
            first, last = spans[one]
            for two in range(one + 1, len(self.bodies)):
                if spans[two][0] > last or spans[two][1] < first:
                    continue
                for mine, value in body.parts:
                    for theirs, other in self.bodies[two].parts:
                        if _meet(value, other):
                            met[one].append((two, theirs - mine - value.bytes, theirs - mine + other.bytes))
                            met[two].append((one, mine - theirs - other.bytes, mine - theirs + value.bytes))
        self.meets = [np.array(meetings, np.int64).reshape(-1, 3).T for meetings in met]
        """Per body: others, and what one's own base minus theirs is strictly between."""

    def place(self, order: Sequence[int]) -> Bases:
        """Base of every body, placed in this order."""
        bases = np.full(len(self.bodies), -1)
        for body in order:
            bases[body] = self._base(body, bases, bases >= 0)
        return bases

    def ascending(self, bases: Bases) -> list[int]:
        """The order in which bodies lie, the lowest first."""
        return sorted(range(len(self.bodies)), key=lambda body: int(bases[body]))

    def _base(self, body: int, bases: Bases, placed: NDArray[np.bool_]) -> int:
        """The lowest base that is free beside the bodies that are placed already."""
        return int(self._gaps(body, bases, placed, ENDLESS)[0][0])

    def _gaps(self, body: int, bases: Bases, placed: NDArray[np.bool_], limit: int) -> tuple[Bases, Bases]:
        """Lowest and highest base in every gap below a limit that the bodies placed already leave."""
        meets, unit, most = self.meets[body], self.units[body], limit - self.sizes[body]
        others, below, above = meets[:, placed[meets[0]]]
        theirs = bases[others]
        begins = theirs + below
        order = begins.argsort(kind="stable")
        # Where this body could lie when the first, the first two, ... of the others are in its way.
        lowest = np.zeros(len(order) + 1, np.int64)
        np.maximum.accumulate((theirs + above)[order], out=lowest[1:])
        lowest = np.maximum(-(-lowest // unit) * unit, 0)
        highest = np.full(len(order) + 1, most)
        np.minimum(begins[order], most, out=highest[:-1])
        free = lowest <= highest
        return lowest[free], highest[free] // unit * unit

    def squeeze(self, bases: Bases, least: int) -> Bases:
        """Bases below the lowest limit that is found by halving what lies between the bound and the peak."""
        lives = [body.last - body.first + 1 for body in self.bodies]
        steps = max(body.last for body in self.bodies) + 1
        high = [life * SHORT <= steps for life in lives]
        order = sorted(range(len(lives)), key=lambda n: (high[n], -self.sizes[n] if high[n] else -lives[n]))
        low, peak = least, self.peak(bases)
        while peak - low > least // GRAIN:
            limit = (low + peak) // 2
            found = self.fit(order, high, limit)
            if found is None:
                low = limit + 1
            else:
                order, fitted = found
                bases = min(self.place(self.ascending(fitted)), fitted, key=self.peak)
                peak = self.peak(bases)
        return bases

    def fit(self, order: Sequence[int], high: Sequence[bool], limit: int) -> tuple[list[int], Bases] | None:
        """An order and its bases below a limit, those that are `high` as near to it as they can; None: not found.

        A body for which no room is left takes its turn earlier, after half of those before it.
        """
        tried, bases = list(order), np.full(len(order), -1)
        done = squeezed = 0
        while done < len(tried):
            body = tried[done]
            lowest, highest = self._gaps(body, bases, bases >= 0, limit)
            if len(lowest):
                bases[body] = highest[-1] if high[body] else lowest[0]
                done += 1
            elif squeezed < SQUEEZES and done > 0:
                squeezed += 1
                bases[tried[done // 2 : done]] = -1
                tried.insert(done // 2, tried.pop(done))
                done //= 2
            else:
                return None
        return tried, bases

    def replace(self, order: Sequence[int], known: Bases, moved: tuple[int, int], most: int) -> Bases | None:
        """As `place`, from the bases of the order before two bodies changed turns; None above `most`.

        A body is placed anew if something that it meets came, went or moved below the top of its own range: what lies
        above a free place changes nothing.
        """
        turn = np.empty(len(order), np.int64)
        turn[order] = np.arange(len(order))
        bases, doubtful = known.copy(), np.zeros(len(order), np.bool_)

        def doubt(body: int, base: int) -> None:
            others, _, above = self.meets[body]
            doubtful[others[base - above < bases[others]]] = True

        for body in moved:
            doubtful[body] = True
            doubt(body, known[body])
        for body in order[turn[list(moved)].min() :]:
            if not doubtful[body]:
                continue
            base = self._base(body, bases, turn < turn[body])
            if base + self.sizes[body] > most:
                return None
            if base != known[body] or body in moved:
                bases[body] = base
                doubt(body, min(base, known[body]))
        return bases

    def climb(self, order: Sequence[int], least: int, turns: int) -> Bases:
        """Bases after so many turns, or at the lower bound.

        A body that ends at the peak changes its turn with one that it meets, or one step further away; what does
        not make the layout larger stays. The random choices come from a fixed seed.
        """
        chance = random.Random(0)
        best, bases = list(order), self.place(order)
        peak, idle = self.peak(bases), 0
        for _ in range(turns):
            if idle * len(order) >= IDLE and peak <= NEAR * least:
                break
            tops = np.flatnonzero(bases + self.sizes == peak).tolist()
            near = self.meets[chance.choice(tops)][0].tolist() if peak > least else []
            if not near:
                break
            one, two = chance.choice(tops), chance.choice(near)
            if chance.random() < 0.5:
                two = chance.choice(self.meets[two][0].tolist())
            tried = list(best)
            a, b = tried.index(one), tried.index(two)
            tried[a], tried[b] = tried[b], tried[a]
            found = self.replace(tried, bases, (one, two), peak)
            idle += 1
            if found is not None:
                idle = 0 if self.peak(found) < peak else idle
                best, bases, peak = tried, found, self.peak(found)
        return bases

    def peak(self, bases: Bases) -> int:
        """Highest end."""
        return int(max(map(add, bases.tolist(), self.sizes), default=0))
