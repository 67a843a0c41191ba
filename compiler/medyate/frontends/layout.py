# SPDX-License-Identifier: Apache-2.0
"""How a program's tensor, of any rank and order of axes, lies in a tensor of the IR.

A reshape or a permutation changes the reading alone and costs nothing. Values move only where an
operation needs its axes as (height, width, channels) and they lie otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

from medyate.frontends.builder import LAYOUT, GraphBuilder
from medyate.ir import Shape
from medyate.ops.reshape import Reshape

Factors = tuple[int, ...]
Places = tuple[int | None, int | None, int | None]
"""Axis of the program's tensor that is the (height, width, channels) of the IR's; None: of size 1."""


@dataclass(frozen=True)
class View:
    """The IR's tensor is an array of `sizes`, none of them 1; each axis runs over some of these factors."""

    tensor: str
    sizes: Factors
    axes: tuple[Factors, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes as the program sees them."""
        return tuple(math.prod(self.sizes[factor] for factor in axis) for axis in self.axes)

    def permuted(self, order: Sequence[int]) -> View:
        """Axis i is axis order[i] of this one."""
        return View(self.tensor, self.sizes, tuple(self.axes[axis] for axis in order))

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same values read under another shape; None where that cuts across a factor."""
        left = [(factor, self.sizes[factor]) for axis in self.axes for factor in axis][::-1]
        parts: list[list[int]] = [[] for _ in self.sizes]
        groups: list[list[tuple[int, int]]] = []
        for size in shape:
            wanted, group = size, []
            while wanted > 1:
                factor, rest = left.pop() if left else (0, 0)
                taken = math.gcd(wanted, rest)
                if taken not in (wanted, rest) or not rest:
                    return None
                if taken < rest:
                    left.append((factor, rest // taken))
                group.append((factor, len(parts[factor])))
                parts[factor].append(taken)
                wanted //= taken
            groups.append(group)
        if left:
            return None
        first = [sum(map(len, parts[:factor])) for factor in range(len(parts))]
        axes = tuple(tuple(first[factor] + part for factor, part in group) for group in groups)
        return View(self.tensor, tuple(size for part in parts for size in part), axes)


@dataclass(frozen=True)
class Image:
    """A tensor of the IR whose (height, width, channels) are axes of the program's tensor."""

    tensor: str
    places: Places
    rank: int

    def view(self, tensor: str, shape: Shape) -> View:
        """Another tensor of the IR, read as this one is."""
        return read_as(tensor, shape, self.places, self.rank)

    def triple(self, by_axis: Callable[[int], int], otherwise: int) -> tuple[int, int, int]:
        """One number for each of (height, width, channels)."""
        height, width, channels = (otherwise if axis is None else by_axis(axis) for axis in self.places)
        return height, width, channels

    def pair(self, by_axis: Callable[[int], int], otherwise: int) -> tuple[int, int]:
        """One number for each of (height, width)."""
        return self.triple(by_axis, otherwise)[:2]


def read_as(tensor: str, shape: Shape, places: Places, rank: int) -> View:
    """A tensor of the IR as a program's tensor of `rank` axes."""
    cut = _cut(tuple(size for size in shape if size > 1), shape)
    assert cut is not None
    axes = tuple(cut[places.index(axis)] if axis in places else () for axis in range(rank))
    return View(tensor, tuple(size for size in shape if size > 1), axes)


def _cut(sizes: Factors, shape: Shape) -> tuple[Factors, Factors, Factors] | None:
    """The factors that each of (height, width, channels) runs over; None: one lies across their borders."""
    groups, factor = [], 0
    for size in shape:
        first, product = factor, 1
        while factor < len(sizes) and product < size:
            product *= sizes[factor]
            factor += 1
        if product != size:
            return None
        groups.append(tuple(range(first, factor)))
    return (groups[0], groups[1], groups[2]) if factor == len(sizes) else None


class Layouts:
    """Puts values where an operation needs them; the same move is made once."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self._moved: dict[tuple[str, Shape, tuple[int, ...], Shape], str] = {}

    def held(self, view: View, axis: int) -> Factors:
        """The factors of an axis that lies as the tensor's channels; () for any other."""
        cut = _cut(view.sizes, self.builder.shape(view.tensor))
        return cut[2] if cut is not None and view.axes[axis] == cut[2] else ()

    def natural(self, view: View, without: Sequence[int] = ()) -> Places | None:
        """Places under which little or nothing moves, with no axis of `without` as channels; None: too many axes."""
        rank = len(view.axes)
        held = [axis for axis in range(rank) if self.held(view, axis)]
        filled = [axis for axis in range(rank) if view.axes[axis]]
        for channels in (*held, min(1, rank - 1), *filled[::-1], None):
            if channels is None or channels not in without:
                break
        others = [axis for axis in range(rank) if axis != channels and (axis > 0 or view.axes[0])]
        if len(others) > 2:
            others = [axis for axis in others if view.axes[axis]]
        if len(others) > 2:
            return None
        height, width = (*others, None, None)[:2]
        return self.upright(view, height, width, channels)

    def upright(self, view: View, height: int | None, width: int | None, channels: int | None) -> Places:
        """Height and width exchanged, where the tensor is one column and the program has one row."""
        column = self.builder.shape(view.tensor)[1] == 1
        if column and width is not None and view.axes[width] and (height is None or not view.axes[height]):
            return width, height, channels
        return height, width, channels

    def image(self, node: str, view: View, places: Places) -> Image | None:
        """The values with the axes `places` as (height, width, channels); None where axes are left over."""
        groups = [() if axis is None else view.axes[axis] for axis in places]
        order = tuple(factor for group in groups for factor in group)
        if sorted(order) != list(range(len(view.sizes))):
            return None
        height, width, channels = (math.prod(view.sizes[factor] for factor in group) for group in groups)
        tensor = self._moved_to(node, view, order, (height, width, channels))
        return None if tensor is None else Image(tensor, places, len(view.axes))

    def beside(self, node: str, view: View, other: View) -> View | None:
        """`other` with its values in the order of `view`'s; None where the two cut across each other."""
        cut = _cut(view.sizes, self.builder.shape(view.tensor))
        factors = [factor for axis in view.axes for factor in axis]
        split = other.reshaped([view.sizes[factor] for factor in factors])
        if cut is None or split is None or view.shape != other.shape:
            return None
        groups = dict(zip(factors, split.axes, strict=True))
        order = tuple(part for factor in range(len(view.sizes)) for part in groups[factor])
        tensor = self._moved_to(node, split, order, self.builder.shape(view.tensor))
        return None if tensor is None else View(tensor, view.sizes, view.axes)

    def vector(self, node: str, view: View) -> View | None:
        """The values in the program's own order, as one axis."""
        flat = View(view.tensor, view.sizes, (tuple(factor for axis in view.axes for factor in axis),))
        image = self.image(node, flat, (None, None, 0))
        return None if image is None else image.view(image.tensor, self.builder.shape(image.tensor))

    def _moved_to(self, node: str, view: View, order: Factors, shape: Shape) -> str | None:
        turn = self._turn(view, order, shape)
        if turn is None:
            return None
        source, axes = turn
        key = (view.tensor, source, axes, shape)
        if key not in self._moved:
            name = f"{node}/{len(self._moved)}"
            tensor = view.tensor
            with self.builder.reading(LAYOUT):
                if axes != (0, 1, 2):
                    tensor = self._reshape(f"{name}/from", tensor, source)
                    self.builder.transpose(f"{name}/turned", tensor, f"{name}/turned", axes)
                    tensor = f"{name}/turned"
                self._moved[key] = self._reshape(f"{name}/as", tensor, shape)
        return self._moved[key]

    def _turn(self, view: View, order: Factors, shape: Shape) -> tuple[Shape, tuple[int, int, int]] | None:
        """(shape to read the tensor under, order of its axes): one transpose brings `order` about."""
        if order == tuple(range(len(order))):
            return shape, (0, 1, 2)
        own = self.builder.shape(view.tensor)
        cuts = [k for k in range(1, len(order)) if order[k] != order[k - 1] + 1]
        runs = sorted(order[first:last] for first, last in zip([0, *cuts], [*cuts, len(order)], strict=True))
        blocks = [math.prod(view.sizes[factor] for factor in run) for run in runs]
        sources = [own, *([(blocks[0], 1, blocks[1])] if len(blocks) == 2 else [])]
        sources += [(blocks[0], blocks[1], blocks[2])] if len(blocks) == 3 else []
        for source in sources:
            cut = _cut(view.sizes, source)
            fits = [
                axes
                for axes in permutations(range(3))
                if cut is not None and sum((cut[axis] for axis in axes), ()) == order
            ]
            if fits:
                best = min(fits, key=lambda axes: tuple(source[axis] for axis in axes) != shape)
                return source, (best[0], best[1], best[2])
        return None

    def _reshape(self, name: str, tensor: str, shape: Shape) -> str:
        """Only an input that is a vector takes the shape of its reader: an image's shape is the data's."""
        own = self.builder.shape(tensor)
        if own == shape:
            return tensor
        if self.builder.tensor(tensor) == self.builder.input and own[:2] != (1, 1):
            self.builder.emit(name, "reshape", Reshape(shape), (tensor,), name)
        else:
            self.builder.reshape(name, tensor, name, shape)
        return name
