# SPDX-License-Identifier: Apache-2.0
"""ONNX operations that put values elsewhere or give them other sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from medyate.arithmetic.scheme import UINT8_SHIFT
from medyate.frontends import onnx_quantised as integers
from medyate.frontends.builder import triple
from medyate.frontends.onnx_graph import CHANNELS_FIRST, REAL, ROWS, Importer, View, name_of, reshaped
from medyate.ir import Quant

RANGES: Mapping[str, tuple[int, int]] = {"uint8": (0, 255), "int8": (-128, 127)}
"""Numbers of an input that are real numbers as they are."""
NEAREST: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def identity(i: Importer, node: Any) -> None:
    """The same tensor under another name."""
    i.views[node.output[0]] = i.view(node)


def dropout(i: Importer, node: Any) -> None:
    """Nothing, outside training."""
    training = i.given(node, 2)
    if training and i.constant(node, training).any():
        i.refuse(node, "it is in training mode")
    identity(i, node)


def cast(i: Importer, node: Any) -> None:
    """Nothing, from real numbers to real numbers."""
    kind, view = onnx.TensorProto.DataType.Name(i.attributes(node)["to"]), i.view(node)
    if kind not in REAL:
        i.refuse(node, f"a cast to {kind}")
    if view.integer and view.tensor != i.builder.input:
        i.refuse(node, "it takes stored integers for real numbers")
    if view.integer:
        i.builder.input_range = RANGES[view.integer]
        if i.quantised:
            i.settle(view.tensor, Quant(1.0, -UINT8_SHIFT if view.integer == "uint8" else 0))
    i.views[node.output[0]] = replace(view, integer="")


def _dims(i: Importer, node: Any, dims: Sequence[int] | None) -> None:
    """The same values under other sizes."""
    view = i.view(node)
    if dims is None or math.prod(dims) != math.prod(view.dims):
        i.refuse(node, "it mixes values of samples")
    i.views[node.output[0]] = replace(view, dims=tuple(dims))


def reshape(i: Importer, node: Any) -> None:
    """The same values under other sizes, as far as they stay those of one sample."""
    view, target = i.view(node), i.numbers(node, 1, "shape")
    dims = reshaped(view.dims, target or [], copies=not i.attributes(node).get("allowzero", 0))
    if dims is None:
        i.refuse(node, f"a reshape of {view.dims} to {target} is none of one sample")
    _dims(i, node, dims)


def flatten(i: Importer, node: Any) -> None:
    """The same values as a vector."""
    dims = i.view(node).dims
    axis = int(i.attributes(node).get("axis", 1))
    axis = axis + len(dims) + 1 if axis < 0 else axis
    if math.prod((1, *dims)[:axis]) != 1:
        i.refuse(node, f"axis {axis}")
    _dims(i, node, (math.prod(dims),))


def squeeze(i: Importer, node: Any) -> None:
    """The same values without some axes of size 1."""
    dims, axes = i.view(node).dims, i.numbers(node, 1, "axes")
    gone = {axis % (len(dims) + 1) for axis in axes or (0,)}
    if 0 in gone or any(dims[axis - 1] != 1 for axis in gone):
        i.refuse(node, f"the axes {axes} of {dims}")
    _dims(i, node, [size for axis, size in enumerate(dims, 1) if axis not in gone])


def unsqueeze(i: Importer, node: Any) -> None:
    """The same values with more axes of size 1."""
    dims, axes = list(i.view(node).dims), i.numbers(node, 1, "axes") or []
    rank = len(dims) + 1 + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        if axis == 0:
            i.refuse(node, "an axis in front of the batch")
        dims.insert(axis - 1, 1)
    _dims(i, node, dims)


def transpose(i: Importer, node: Any) -> None:
    """The same values, read in another order; axes that stay side by side count as one."""
    view = i.view(node)
    rank = len(view.dims) + 1
    order = [int(axis) for axis in i.attributes(node).get("perm", range(rank)[::-1])]
    if order[:1] != [0] or sorted(order) != list(range(rank)):
        i.refuse(node, f"an order of {order}")
    wanted = [axis - 1 for axis in order[1:]]
    dims = [view.dims[axis] for axis in wanted]
    axes = i.axes(view)
    if axes is not None:
        i.views[node.output[0]] = View(view.tensor, tuple(dims), _completed([axes[k] for k in wanted]))
        return
    groups: list[list[int]] = []  # of axes that stay side by side
    for axis in (k for k in wanted if view.dims[k] > 1):
        apart = not groups or any(view.dims[k] > 1 for k in range(groups[-1][-1] + 1, axis)) or axis < groups[-1][-1]
        groups.append([axis]) if apart else groups[-1].append(axis)
    if len(groups) > 3:
        i.refuse(node, f"an order of {order} for {view.dims}")
    inside = sorted(groups)
    sizes = [math.prod(view.dims[k] for k in group) for group in inside]
    tensor = i.laid(view, triple((*sizes, 1, 1, 1)[:3]), ROWS)
    i.views[node.output[0]] = View(tensor, tuple(dims), _completed([inside.index(group) for group in groups]))


def _completed(axes: Sequence[int]) -> tuple[int, int, int]:
    return triple((*axes, *(axis for axis in range(3) if axis not in axes)))


def concat(i: Importer, node: Any) -> None:
    """Tensors side by side, under one scale."""
    placed = [i.placed(node, position) for position in range(len(node.input))]
    views, axes = [view for view, _ in placed], placed[0][1]
    if any(own != axes for _, own in placed):
        views = [
            replace(i.view(node, k), tensor=i.plane(node, k), order=CHANNELS_FIRST) for k in range(len(node.input))
        ]
        axes = CHANNELS_FIRST[: len(views[0].dims)]
    axis = int(i.attributes(node)["axis"]) % (len(axes) + 1)
    if axis == 0 or any(len(view.dims) != len(axes) for view in views):
        i.refuse(node, "it joins samples, or tensors of different axes")
    tensors = integers.one_scale(i, node, views)
    i.builder.concat(name_of(node), tensors, node.output[0], axes[axis - 1])
    dims = list(views[0].dims)
    dims[axis - 1] = sum(view.dims[axis - 1] for view in views)
    i.same_scale(i.made(node, dims, axes), *tensors)


def _part(i: Importer, node: Any, output: str, ranges: Mapping[int, range]) -> None:
    """Some elements of every axis: `ranges` by ONNX axis."""
    view, places = i.placed(node)
    shape = i.builder.shape(view.tensor)
    parts = [range(size) for size in shape]
    for axis, chosen in ranges.items():
        parts[places[axis - 1]] = chosen
    if not all(parts):
        i.refuse(node, "its result is empty")
    bounds = (triple(r.start for r in parts), triple(r.stop for r in parts), triple(r.step for r in parts))
    i.builder.slice(output if output != node.output[0] else name_of(node), view.tensor, output, *bounds)
    dims = [len(parts[place]) for place in places]
    i.same_scale(i.made(node, dims, places, output), view.tensor)


def part_of(i: Importer, node: Any) -> None:
    """Every n-th element of some axes."""
    dims = (1, *i.view(node).dims)
    starts, ends = i.numbers(node, 1, "starts") or [], i.numbers(node, 2, "ends") or []
    axes = i.numbers(node, 3, "axes") or list(range(len(starts)))
    steps = i.numbers(node, 4, "steps") or [1] * len(axes)
    ranges = {}
    for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
        axis = given % len(dims)
        if step < 1:
            i.refuse(node, f"a step of {step}")
        ranges[axis] = range(*slice(start, end, step).indices(dims[axis]))
    if len(ranges.pop(0, range(1))) != 1:
        i.refuse(node, "its result is empty")
    _part(i, node, node.output[0], ranges)


def split(i: Importer, node: Any) -> None:
    """Neighbouring parts of an axis, each a tensor of its own."""
    dims = (1, *i.view(node).dims)
    axis = int(i.attributes(node).get("axis", 0)) % len(dims)
    sizes = i.numbers(node, 1, "split")
    if not sizes:
        whole = -(-dims[axis] // len(node.output))
        sizes = [min(whole, dims[axis] - k * whole) for k in range(len(node.output))]
    if axis == 0 or sum(sizes) != dims[axis] or min(sizes) < 1:
        i.refuse(node, f"{sizes} along axis {axis} of {dims[1:]}")
    start = 0
    for output, size in zip(node.output, sizes, strict=True):
        if output:
            _part(i, node, output, {axis: range(start, start + size)})
        start += size


def pad(i: Importer, node: Any) -> None:
    """Zeros around; in stored integers, the number that stands for zero."""
    a, view = i.attributes(node), i.view(node)
    rank = len(view.dims) + 1
    pads = i.numbers(node, 1, "pads") or []
    axes = [axis % rank for axis in i.numbers(node, 3, "") or range(rank)]
    value = i.constant(node, node.input[2]).item() if i.given(node, 2) else a.get("value", 0.0)
    if (
        a.get("mode", b"constant") != b"constant"
        or value != integers.stored_zero(i, view)
        or len(pads) != 2 * len(axes)
    ):
        i.refuse(node, "only zeros can be added")
    around = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    if around.pop(0, (0, 0)) != (0, 0):
        i.refuse(node, "samples are added")
    view, places = i.placed(node)
    both = [(0, 0)] * 3
    for axis, pair in around.items():
        both[places[axis - 1]] = pair
    i.builder.pad(name_of(node), view.tensor, node.output[0], triple(b for b, _ in both), triple(e for _, e in both))
    dims = [size + sum(around.get(axis, (0, 0))) for axis, size in enumerate(view.dims, 1)]
    i.same_scale(i.made(node, dims, places), view.tensor)


def space_to_depth(i: Importer, node: Any) -> None:
    """Blocks of pixels as channels."""
    source = i.plane(node)
    i.builder.space_to_depth(name_of(node), source, node.output[0], int(i.attributes(node)["blocksize"]))
    i.same_scale(i.made_plane(node, len(i.view(node).dims)), source)


def depth_to_space(i: Importer, node: Any) -> None:
    """Channels as blocks of pixels."""
    a, source = i.attributes(node), i.plane(node)
    first = a.get("mode", b"DCR") == b"CRD"
    i.builder.depth_to_space(name_of(node), source, node.output[0], int(a["blocksize"]), channels_first=first)
    i.same_scale(i.made_plane(node, len(i.view(node).dims)), source)


def resize(i: Importer, node: Any) -> None:
    """Every pixel several times, or every n-th one."""
    a, view = i.attributes(node), i.view(node)
    dims = (1, *view.dims)
    position = 2 if node.op_type == "Resize" and i.opset >= 11 else 1
    scales = i.constant(node, node.input[position]).reshape(-1) if i.given(node, position) else a.get("scales", ())
    sizes = i.numbers(node, 3, "") if i.given(node, 3) else None
    axes = [int(axis) % len(dims) for axis in a.get("axes", range(len(dims)))]
    if a.get("mode", b"nearest") != b"nearest" or a.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        i.refuse(node, "only the nearest pixel is supported, in both directions alike")
    targets = sizes or [math.floor(dims[axis] * float(s)) for axis, s in zip(axes, scales, strict=True)]
    source, times, step = i.plane(node), [1, 1, 1], [1, 1, 1]
    start = [0, 0, 0]
    for axis, target in zip(axes, targets, strict=True):
        chosen = _nearest(i, node, dims[axis], target, position == 2)
        if chosen == list(range(dims[axis])):
            continue
        place = {2: 0, 3: 1}.get(axis)
        if place is None:
            i.refuse(node, "samples or channels are enlarged")
        if target % dims[axis] == 0 and chosen == [k // (target // dims[axis]) for k in range(target)]:
            times[place] = target // dims[axis]
        elif len({b - c for c, b in itertools.pairwise(chosen)}) <= 1:
            start[place], step[place] = chosen[0], (chosen[1] - chosen[0] if target > 1 else 1)
            step[place] = max(1, step[place])
        else:
            i.refuse(node, f"{dims[axis]} pixels become {target}: no whole factor")
    if max(times) > 1 and max(step) > 1:
        i.refuse(node, "one direction grows and the other shrinks")
    if max(times) > 1:
        i.builder.enlarge(name_of(node), source, node.output[0], (times[0], times[1]))
    else:
        size = dict(zip(axes, targets, strict=True))
        shape = i.builder.shape(source)
        lengths = (size.get(2, shape[0]), size.get(3, shape[1]) if len(dims) > 3 else 1, shape[2])
        ends = [s + (n - 1) * d + 1 for s, n, d in zip(start, lengths, step, strict=True)]
        i.builder.slice(name_of(node), source, node.output[0], triple(start), triple(ends), triple(step))
    i.same_scale(i.made_plane(node, len(view.dims)), source)


def _nearest(i: Importer, node: Any, size: int, target: int, newer: bool) -> list[int]:
    """Which pixel every new one is taken from."""
    if target == size:
        return list(range(size))
    a, new = i.attributes(node), np.arange(target, dtype=np.float64)
    kind = a.get("coordinate_transformation_mode", b"half_pixel").decode() if newer else "asymmetric"
    rounding = a.get("nearest_mode", b"round_prefer_floor").decode() if newer else "floor"
    ratio = size / target
    if kind == "asymmetric":
        old = new * ratio
    elif kind == "align_corners":
        old = new * (size - 1) / max(1, target - 1)
    elif kind in ("half_pixel", "half_pixel_symmetric") or (kind == "pytorch_half_pixel" and target > 1):
        old = (new + 0.5) * ratio - 0.5
    else:
        i.refuse(node, f"coordinates by {kind}")
    rounded = NEAREST[rounding](np.round(old, 9))
    return [int(k) for k in np.clip(rounded, 0, size - 1)]


def shape_of(i: Importer, node: Any) -> None:
    """Sizes, with a batch of one sample: a constant."""
    a, sizes = i.attributes(node), [1, *i.view(node).dims]
    i.constants[node.output[0]] = np.array(sizes[a.get("start", 0) : a.get("end")], np.int64)
