# SPDX-License-Identifier: Apache-2.0
"""Values put elsewhere: slices, strides, zero padding, transposes, nearest-neighbour enlargement.

The parameter-free shortcut of CIFAR ResNets (every other pixel, zero channels around) is one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import Integers
from medyate.errors import GraphError
from medyate.ir import Attrs, Shape
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Rows, Site, no_workspace

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Move(Attrs):
    """Element o of output axis i is element start[i] + o // repeat[i] * step[i] of input axis axes[i].

    What lies outside the input is zero. Axes are (height, width, channels).
    """

    size: Shape
    axes: Triple = (0, 1, 2)
    start: Triple = (0, 0, 0)
    step: Triple = (1, 1, 1)
    repeat: Triple = (1, 1, 1)

    def source(self, axis: int, position: int) -> int:
        """Where element `position` of an output axis comes from; may be outside."""
        return self.start[axis] + position // self.repeat[axis] * self.step[axis]


def identity(a: Move, shape: Shape) -> bool:
    """Whether nothing moves at all."""
    return a == Move(shape)


def compose(first: Move, second: Move, shape: Shape) -> Move | None:
    """One move for two, where the tensor between them cuts nothing off that the second takes up again."""
    if first.repeat != (1, 1, 1) or second.repeat != (1, 1, 1):
        return None
    axes, start, step = [], [], []
    for axis, between in enumerate(second.axes):
        joined = first.axes[between]
        begin = first.source(between, 0) + second.start[axis] * first.step[between]
        stride = second.step[axis] * first.step[between]
        for position in range(second.size[axis]):
            cut_off = not 0 <= second.source(axis, position) < first.size[between]
            if cut_off and 0 <= begin + position * stride < shape[joined]:
                return None
        axes.append(joined)
        start.append(begin)
        step.append(stride)
    return Move(second.size, _triple(axes), _triple(start), _triple(step))


def _triple(values: list[int]) -> Triple:
    return values[0], values[1], values[2]


def _shape(a: Move, inputs: tuple[Shape, ...]) -> Shape:
    whole = all(-32768 <= s <= 32767 for s in a.start) and all(-128 <= s <= 127 for s in a.step)
    if sorted(a.axes) != [0, 1, 2] or min(a.size) < 1 or not whole or not all(1 <= r <= 255 for r in a.repeat):
        raise GraphError(f"values of {inputs[0]} cannot be moved to {a.size}.", "Export the model again.")
    if max(a.repeat) > 1 and a != Move(_enlarged(inputs[0], a.repeat), repeat=a.repeat):
        raise GraphError("an enlargement that also cuts or turns.", "Separate the two.")
    return a.size


def _enlarged(shape: Shape, repeat: Triple) -> Shape:
    return shape[0] * repeat[0], shape[1] * repeat[1], shape[2] * repeat[2]


def _rows(a: Move, inputs: tuple[Shape, ...], _: int) -> Rows | None:
    if a.axes[0] != 0 or a.step[0] < 0:
        return None
    height = inputs[0][0]
    ends = [min(height, max(0, a.source(0, row) + 1)) for row in range(a.size[0])]
    return tuple((max(0, min(end - 1, height)), end) for end in ends)


def _real(a: Move, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    y = xs[0].permute(0, 2, 3, 1).permute(0, *(axis + 1 for axis in a.axes))
    for axis in range(3):
        source = torch.tensor([a.source(axis, position) for position in range(a.size[axis])])
        inside = (source >= 0) & (source < y.shape[axis + 1])
        y = y.index_select(axis + 1, source.clamp(0, y.shape[axis + 1] - 1))
        y = y * inside.to(y.dtype).view([-1 if k == axis + 1 else 1 for k in range(4)])
    return y.permute(0, 3, 1, 2)


def _integer(a: Move, xs: tuple[Any, ...], _: Arrays, facts: Integers) -> Any:
    zero = facts.inputs[0].zero
    return _real(a, (xs[0] - zero,), {}) + zero


def _fields(site: Site) -> tuple[Field, ...]:
    a = site.attrs
    return (
        *((name, f"{{{', '.join(map(str, getattr(a, name)))}}}") for name in ("axes", "start", "step", "repeat")),
        ("zero", str(site.facts.inputs[0].zero)),
    )


def _backward(site: Site) -> Backward:
    if max(site.attrs.repeat) > 1:
        return Backward("mdy_back_enlarged", "sink", "", (1.0,))
    return Backward("mdy_back_move", "copy", "", (1.0,))


MOVE = OpDef(
    name="move",
    attrs=Move,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: True,
    fixed_output=lambda _: None,
    macs=lambda _, __: 0,
    rows=_rows,
    in_place=False,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=lambda _: {},
    kernel=Kernel(
        header="mdy/ops/move.h",
        struct="mdy_move_t",
        run="mdy_run_move",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(
        Case(Move((3, 3, 8), start=(0, 0, -2), step=(2, 2, 1)), ((6, 6, 4),)),
        Case(Move((3, 4, 8)), ((3, 4, 5),)),
        Case(Move((5, 6, 2), start=(-1, -2, 1)), ((4, 3, 4),)),
        Case(Move((5, 3, 4), axes=(2, 0, 1)), ((3, 4, 5),)),
        Case(Move((3, 4, 2), start=(2, 3, 0), step=(-1, -1, 1)), ((3, 4, 2),)),
        Case(Move((6, 9, 2), repeat=(2, 3, 1)), ((3, 3, 2),)),
    ),
)
