# SPDX-License-Identifier: Apache-2.0
"""ATen operations that put values elsewhere, name them anew or read them otherwise."""

from __future__ import annotations

import numpy as np
import torch

from medyate.frontends.builder import triple
from medyate.frontends.layout import View
from medyate.frontends.torch_program import (
    Arguments,
    Importer,
    Node,
    axis_of,
    axis_order,
    one_sample,
    operation,
    traced_shape,
    whole_number,
)

# --- the same values ---


def same(i: Importer, node: Node, a: Arguments) -> None:
    """The same values under another name."""
    i.put(node, i.view(node, a["self"]))


def result(i: Importer, node: Node, a: Arguments) -> None:
    """One of several results."""
    part = f"{a['0'].name}/{a['1']}"
    if part in i.views:
        i.put(node, i.views[part])
    elif node.users:
        raise i.refuse(node, "only its first result exists in inference")


def dropout(i: Importer, node: Node, a: Arguments) -> None:
    """Nothing, outside training."""
    if a["train"]:
        raise i.refuse(node, "it drops values at random; call module.eval() before the export")
    i.put(node, i.view(node, a["input"] if "input" in a else a["self"]))


def cast(i: Importer, node: Node, a: Arguments) -> None:
    """Nothing, from real numbers to real numbers."""
    if node.meta["val"].dtype != torch.float32:
        raise i.refuse(node, f"its result is of {node.meta['val'].dtype}; only float32 is supported")
    i.put(node, i.view(node, a["self"]))


def reshape(i: Importer, node: Node, a: Arguments) -> None:
    """The same values under other sizes."""
    view = i.view(node, a["self"])
    i.put(node, _reshaped(i, node, view, traced_shape(node)))


def _reshaped(i: Importer, node: Node, view: View, shape: tuple[int, ...]) -> View:
    found = view.reshaped(shape)
    if found is None:
        flat = i.layouts.vector(node.name, view)
        found = None if flat is None else flat.reshaped(shape)
    if found is None:
        raise i.refuse(node, f"from {view.shape} to {shape}")
    return found


def permute(i: Importer, node: Node, a: Arguments) -> None:
    """The same values with their axes in another order."""
    view = i.view(node, a["self"])
    i.put(node, view.permuted(axis_order(a, len(view.axes))))


def shuffle(i: Importer, node: Node, a: Arguments) -> None:
    """Channels of several groups in turn."""
    view, groups = i.view(node, a["self"]), int(a["groups"])
    batch, channels, *rest = view.shape
    if groups < 1 or channels % groups:
        raise i.refuse(node, f"{groups} groups of {channels} channels")
    split = _reshaped(i, node, view, (batch, groups, channels // groups, *rest))
    order = (0, 2, 1, *range(3, len(split.axes)))
    i.put(node, _reshaped(i, node, split.permuted(order), view.shape))


def expand(i: Importer, node: Node, a: Arguments) -> None:
    """Only a product reads it, which repeats one factor by itself."""
    view = i.view(node, a["self"])
    i.views[node.name] = view
    if view.shape != traced_shape(node):
        i.expanded.add(node.name)


# --- values elsewhere ---


def concat(i: Importer, node: Node, a: Arguments) -> None:
    """Side by side along an axis; stacked tensors get that axis first."""
    views = [i.view(node, tensor) for tensor in a["tensors"]]
    stacked = "stack" in operation(node)
    axis = axis_of(a["dim"], len(views[0].axes) + stacked)
    if stacked:
        views = [View(v.tensor, v.sizes, (*v.axes[:axis], (), *v.axes[axis:])) for v in views]
    first = i.image(node, views[0])
    if axis not in first.places:
        first = i.channels(node, views[0], axis)
    images = [i.image(node, view, first.places) for view in views]
    i.builder.concat(node.name, tuple(image.tensor for image in images), node.name, first.places.index(axis))
    i.put(node, i.made(node, first))


def _part(i: Importer, node: Node, view: View, axis: int, part: range, output: str) -> View:
    """Some positions of one axis."""
    if part == range(view.shape[axis]):
        return view
    image = i.image(node, view)
    if axis not in image.places:
        image = i.channels(node, view, axis)
    if len(part) < 1:
        raise i.refuse(node, "its result is empty")
    start, end = image.triple(lambda k: part.start if k == axis else 0, 0), list(i.builder.shape(image.tensor))
    step = image.triple(lambda k: part.step if k == axis else 1, 1)
    end[image.places.index(axis)] = part.stop
    i.builder.slice(output, image.tensor, output, start, triple(end), step)
    return i.made(node, image, output)


def part_of(i: Importer, node: Node, a: Arguments) -> None:
    """Every n-th position of one axis."""
    view = i.view(node, a["self"])
    axis = axis_of(a["dim"], len(view.axes))
    start, end = (None if value is None else whole_number(value) for value in (a["start"], a["end"]))
    part = range(view.shape[axis])[slice(start, end, int(a["step"]))]
    i.put(node, _part(i, node, view, axis, part, node.name))


def select(i: Importer, node: Node, a: Arguments) -> None:
    """One position of an axis, which is gone then."""
    view = i.view(node, a["self"])
    axis = axis_of(a["dim"], len(view.axes))
    index = range(view.shape[axis])[int(a["index"])]
    part = _part(i, node, view, axis, range(index, index + 1), node.name)
    i.put(node, View(part.tensor, part.sizes, (*part.axes[:axis], *part.axes[axis + 1 :])))


def split(i: Importer, node: Node, a: Arguments) -> None:
    """Parts of one axis, as many and as large as they were traced."""
    view = i.view(node, a["self"])
    axis, start = axis_of(a["dim"], len(view.axes)), 0
    for k, value in enumerate(node.meta["val"]):
        size = one_sample(value.shape[axis])
        part = range(start, start + size)
        i.views[f"{node.name}/{k}"] = _part(i, node, view, axis, part, f"{node.name}/{k}")
        start += size


def pad(i: Importer, node: Node, a: Arguments) -> None:
    """Zeros around; negative numbers cut off."""
    view, given = i.view(node, a["self"]), [whole_number(pad) for pad in a["pad"]]
    rank = len(view.axes)
    if a.get("mode", "constant") != "constant" or (a["value"] or 0.0) != 0.0 or len(given) > 2 * rank:
        raise i.refuse(node, "only zeros can be added")
    pads = dict.fromkeys(range(rank), (0, 0))
    pads.update({rank - 1 - k // 2: (given[k], given[k + 1]) for k in range(0, len(given), 2)})
    image = i.image(node, view)
    if any(any(pad) and axis not in image.places for axis, pad in pads.items()):
        raise i.refuse(node, "it adds samples")
    before, behind = image.triple(lambda axis: pads[axis][0], 0), image.triple(lambda axis: pads[axis][1], 0)
    i.builder.pad(node.name, image.tensor, node.name, before, behind)
    if before[2] == behind[2] == 0 and min(*before, *behind) >= 0:
        i.padded[i.builder.tensor(node.name)] = (image.tensor, (*before[:2], *behind[:2]))
    i.put(node, i.made(node, image))


def enlarge(i: Importer, node: Node, a: Arguments) -> None:
    """Every position as often as the next one, a whole number of times."""
    dimensions = 1 if "1d" in operation(node) else 2
    image = i.window(node, a["input"] if "input" in a else a["self"], dimensions)
    old, new = i.view(node, a["input"] if "input" in a else a["self"]).shape[2:], traced_shape(node)[2:]
    given = a.get("scale_factors") or [a.get(name) for name in ("scales", "scales_h", "scales_w") if name in a]
    times = [size // before for size, before in zip(new, old, strict=True)]
    exact = all(size == before * factor for size, before, factor in zip(new, old, times, strict=True))
    scales = [factor for factor in given if factor is not None]
    if not exact or (scales and [float(s) for s in scales] != [float(t) for t in times]):
        raise i.refuse(node, "it does not enlarge by a whole number")
    i.builder.enlarge(node.name, image.tensor, node.name, image.pair(lambda axis: times[axis - 2], 1))
    i.put(node, i.made(node, image))


def repeat(i: Importer, node: Node, a: Arguments) -> None:
    """Enlargement as it is decomposed: every position so many times."""
    view = i.view(node, a["self"])
    times = dict.fromkeys(range(len(view.axes)), 1)
    for axis, index in enumerate(a["indices"]):
        if index is None:
            continue
        positions = i.numbers(node, index).reshape(-1)
        times[axis] = max(1, len(positions) // view.shape[axis])
        if not np.array_equal(positions, np.arange(view.shape[axis] * times[axis]) // times[axis]):
            raise i.refuse(node, "it picks single elements")
    image = i.image(node, view)
    if any(count > 1 and axis not in image.places[:2] for axis, count in times.items()):
        raise i.refuse(node, "it repeats samples or channels")
    i.builder.enlarge(node.name, image.tensor, node.name, image.pair(lambda axis: times[axis], 1))
    i.put(node, i.made(node, image))


def blocks(i: Importer, node: Node, a: Arguments) -> None:
    """Channels as blocks of pixels, and back; channels run by (channel, row, column)."""
    image = i.window(node, a["self"], 2)
    if "unshuffle" not in operation(node):
        factor = int(a["upscale_factor"])
        i.builder.depth_to_space(node.name, image.tensor, node.name, factor, channels_first=True)
    else:
        factor = int(a["downscale_factor"])
        i.builder.space_to_depth(node.name, image.tensor, node.name, factor, channels_first=True)
    i.put(node, i.made(node, image))


# --- nothing ---


def nothing(_: Importer, __: Node, ___: Arguments) -> None:
    """A size that only a reshape reads, which goes by the traced shape; or a check of one."""


def constant(i: Importer, node: Node, _: Arguments) -> None:
    """Refused: what reads constants only was worked out before."""
    raise i.refuse(node, "it reads values that are no constants")
