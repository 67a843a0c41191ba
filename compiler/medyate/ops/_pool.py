# SPDX-License-Identifier: Apache-2.0
"""What average and max pooling share."""

from __future__ import annotations

from dataclasses import dataclass

from medyate.errors import GraphError
from medyate.ir import Attrs, Shape
from medyate.ops._spatial import Pads, Pair, window_output, window_rows
from medyate.ops.opdef import Field, Rows


@dataclass(frozen=True)
class PoolAttrs(Attrs):
    """A window and its way over the map."""

    kernel: Pair
    stride: Pair
    pads: Pads = (0, 0, 0, 0)


def pool_shape(a: PoolAttrs, inputs: tuple[Shape, ...]) -> Shape:
    """Shape of the output. Raises GraphError where a window would lie in the padding alone."""
    if min(*a.kernel, *a.stride) < 1 or max(*a.kernel, *a.stride) > 255:
        raise GraphError(f"windows of {a.kernel} every {a.stride} pixels.", "Both are 1 to 255.")
    if min(a.pads) < 0 or any(a.pads[i] >= a.kernel[i % 2] for i in range(4)):
        raise GraphError(f"pads of {a.pads} around windows of {a.kernel}.", "Pads are smaller than the window.")
    return (*window_output(inputs[0], a.kernel, a.stride, (1, 1), a.pads), inputs[0][2])


def pool_rows(a: PoolAttrs, inputs: tuple[Shape, ...], _: int) -> Rows:
    """Input rows that every output row reads."""
    return window_rows(inputs[0][0], pool_shape(a, inputs)[0], a.kernel[0], a.stride[0], 1, a.pads[0])


def overlap(a: PoolAttrs) -> int:
    """The largest number of windows that read one pixel."""
    return -(-a.kernel[0] // a.stride[0]) * -(-a.kernel[1] // a.stride[1])


def pool_fields(a: PoolAttrs) -> tuple[Field, ...]:
    """The window's members of the parameter tables."""
    window = (*a.kernel, *a.stride, *a.pads[:2])
    return (("extent", f"{{{', '.join(map(str, window))}}}"),)
