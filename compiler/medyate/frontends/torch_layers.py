# SPDX-License-Identifier: Apache-2.0
"""ATen operations that run windows or weights over a tensor: layers and pools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medyate.frontends.layout import Image, View, read_as
from medyate.frontends.torch_program import (
    RANK,
    Arguments,
    Array,
    Handler,
    Importer,
    Node,
    around,
    axes_of,
    axis_of,
    is_tensor,
    one_sample,
    operation,
    paddings,
    per_dimension,
)
from medyate.ops._spatial import Pair

# --- layers ---


def convolution(i: Importer, node: Node, a: Arguments) -> None:
    """A convolution; zeros that were put around its map become its own."""
    if a.get("transposed", False):
        transposed(i, node, a)
        return
    weight = i.constant(node, a["weight"])
    dimensions = weight.ndim - 2
    if dimensions not in RANK:
        raise i.refuse(node, f"a kernel of {dimensions} dimensions")
    image = i.window(node, a["input"], dimensions)
    stride, dilation = per_dimension(a["stride"], dimensions), per_dimension(a["dilation"], dimensions)
    kernel = weight.shape[2:]
    pads = around(image, paddings(a["padding"], kernel, dilation))
    source, zeros = i.padded.get(i.builder.tensor(image.tensor), (image.tensor, (0, 0, 0, 0)))
    top, left, bottom, right = (pad + zero for pad, zero in zip(pads, zeros, strict=True))
    shaped = weight.reshape(*weight.shape[:2], *image.pair(lambda axis: kernel[axis - 2], 1))
    i.builder.convolution(
        i.layer(node, a["weight"]),
        source,
        node.name,
        shaped.transpose(0, 2, 3, 1),
        i.optional(node, a["bias"]),
        image.pair(lambda axis: stride[axis - 2], 1),
        (top, left, bottom, right),
        image.pair(lambda axis: dilation[axis - 2], 1),
        a["groups"],
    )
    i.put(node, i.made(node, image))


def _affine(i: Importer, node: Node, source: Any, weight: Any, array: Array, bias: Any) -> None:
    """A linear layer (out, in) over the last axis."""
    view = i.view(node, source)
    rows = i.optional(node, bias)
    if rows is not None and rows.size == 1 and array.ndim == 2:
        rows = np.broadcast_to(rows.reshape(-1), (len(array),))
    if array.ndim != 2 or not view.axes or view.shape[-1] != array.shape[1]:
        raise i.refuse(node, f"a weight of {array.shape} over a tensor of {view.shape}")
    name = i.layer(node, weight)
    if any(view.axes[:-1]):  # the same layer for every position
        view = i.with_channels(node, view, len(view.axes) - 1)
        i.builder.convolution(name, view.tensor, node.name, array[:, None, None], rows)
        rest = view.sizes[: len(view.sizes) - len(view.axes[-1])]
        made = (len(rest),) if len(array) > 1 else ()
        i.put(node, View(node.name, (*rest, len(array)) if made else rest, (*view.axes[:-1], made)))
        return
    order = view.axes[-1]
    turned = array.reshape(-1, *(view.sizes[factor] for factor in order))
    turned = turned.transpose(0, *(1 + order.index(factor) for factor in range(len(order))))
    flat = np.ascontiguousarray(turned).reshape(len(array), -1)
    i.builder.linear(name, view.tensor, node.name, flat, rows, channels_first=False)
    i.put(node, read_as(node.name, i.builder.shape(node.name), (None, None, len(view.axes) - 1), len(view.axes)))


def linear(i: Importer, node: Node, a: Arguments) -> None:
    """A linear layer."""
    _affine(i, node, a["input"], a["weight"], i.constant(node, a["weight"]), a["bias"])


def addmm(i: Importer, node: Node, a: Arguments) -> None:
    """A linear layer as it is decomposed: bias + rows @ weight."""
    if a["alpha"] != 1 or a["beta"] != 1:
        raise i.refuse(node, "alpha or beta is not 1")
    _affine(i, node, a["mat1"], a["mat2"], i.constant(node, a["mat2"]).T, a["self"])


def matmul(i: Importer, node: Node, a: Arguments) -> None:
    """A linear layer without bias, as a product with a constant."""
    weight = a["mat2"] if "mat2" in a else a["other"]
    array = i.constant(node, weight)
    if array.ndim == 3 and (array == array[:1]).all():  # decomposed: the same layer over every row of a map
        array = array[0]
    _affine(i, node, a["self"], weight, array.T, None)


def batch_norm(i: Importer, node: Node, a: Arguments) -> None:
    """Batch norm with the statistics of training."""
    if a.get("training", False) or a["running_mean"] is None or a["running_var"] is None:
        raise i.refuse(node, "it computes batch statistics; call module.eval() before the export")
    mean, variance = i.constant(node, a["running_mean"]), i.constant(node, a["running_var"])
    gamma, beta = i.optional(node, a["weight"]), i.optional(node, a["bias"])
    statistics = (
        np.ones_like(mean) if gamma is None else gamma,
        np.zeros_like(mean) if beta is None else beta,
        mean,
        variance,
    )
    view = i.with_channels(node, i.view(node, a["input"]), 1)
    i.builder.batch_norm(i.layer(node, a["running_mean"]), view.tensor, node.name, statistics, a["eps"])
    i.put_first(node, View(node.name, view.sizes, view.axes))


def softmax(i: Importer, node: Node, a: Arguments) -> None:
    """Over the classes of a vector."""
    view = i.view(node, a["self"])
    axis = axis_of(a["dim"], len(view.axes))
    if any(factors for k, factors in enumerate(view.axes) if k != axis):
        raise i.refuse(node, "it does not run over the classes of a vector")
    image = i.image(node, view, (None, None, axis))
    i.builder.softmax(node.name, image.tensor, node.name)
    i.put(node, i.made(node, image))


def last(name: str) -> Handler:
    """An operation that is left out at the network's end."""

    def handler(i: Importer, node: Node, a: Arguments) -> None:
        view = i.view(node, a["self"])
        axis = axis_of(a["dim"], len(view.axes)) if a.get("dim") is not None else None
        others = any(factors for k, factors in enumerate(view.axes) if k != axis)
        if node.name != i.output or axis is None or others:
            raise i.refuse(node, "it is supported at the network's end alone, over the classes of a vector")
        i.builder.leave_out(node.name, name, view.tensor, node.name)
        i.views[node.name] = view

    return handler


def transposed(i: Importer, node: Node, a: Arguments) -> None:
    """A transposed convolution with weight (in, out, h, w)."""
    weight = i.constant(node, a["weight"])
    dimensions = weight.ndim - 2
    if a["groups"] != 1 or dimensions not in RANK or set(per_dimension(a["dilation"], dimensions)) != {1}:
        raise i.refuse(node, "groups or a dilation")
    image = i.window(node, a["input"], dimensions)
    stride, pads = per_dimension(a["stride"], dimensions), per_dimension(a["padding"], dimensions)
    sizes, kernel = node.meta["val"].shape[2:], weight.shape[2:]
    shaped = weight.reshape(*weight.shape[:2], *image.pair(lambda axis: kernel[axis - 2], 1))
    i.builder.transposed_convolution(
        i.layer(node, a["weight"]),
        image.tensor,
        node.name,
        shaped.transpose(1, 2, 3, 0),
        i.optional(node, a["bias"]),
        image.pair(lambda axis: stride[axis - 2], 1),
        image.pair(lambda axis: pads[axis - 2], 0),
        image.pair(lambda axis: one_sample(sizes[axis - 2]), 1),
    )
    i.put(node, i.made(node, image))


# --- pools ---


def pool(i: Importer, node: Node, a: Arguments) -> None:
    """Windows with their average or largest value."""
    dimensions = 1 if "1d" in operation(node) else 2
    image = i.window(node, a["self"], dimensions)
    sizes = i.view(node, a["self"]).shape[2:]
    kernel = per_dimension(a["kernel_size"], dimensions)
    stride = per_dimension(a["stride"], dimensions) if a["stride"] else kernel
    pads = [(pad, pad) for pad in per_dimension(a["padding"], dimensions)]
    if any(d != 1 for d in per_dimension(a.get("dilation", 1), dimensions)) or min(stride) < 1:
        raise i.refuse(node, "dilated windows, or no stride")
    made = node.meta["val"] if is_tensor(node) else node.meta["val"][0]
    behind = [  # the last window of ceil_mode may reach beyond the padding
        max(0, (one_sample(made.shape[2 + k]) - 1) * stride[k] + kernel[k] - sizes[k] - 2 * pads[k][0])
        for k in range(dimensions)
    ]
    average = "avg" in operation(node)
    counted = average and a["count_include_pad"] and any(pad for pad, _ in pads)
    area = math.prod(kernel)
    if average and (a.get("divisor_override") or area) != area:
        raise i.refuse(node, "divisor_override")
    edges = around(image, [(before, last + more) for (before, last), more in zip(pads, behind, strict=True)])
    windows = image.pair(lambda axis: kernel[axis - 2], 1), image.pair(lambda axis: stride[axis - 2], 1)
    tensor = image.tensor
    if counted:  # the padding counts, what the last window reaches beyond it does not
        top, left = image.pair(lambda axis: pads[axis - 2][0], 0)
        bottom, right = image.pair(lambda axis: pads[axis - 2][1], 0)
        i.builder.pad(f"{node.name}/pad", tensor, f"{node.name}/pad", (top, left, 0), (bottom, right, 0))
        tensor, edges = f"{node.name}/pad", (0, 0, edges[2] - bottom, edges[3] - right)
    if average:
        i.builder.average_pool(node.name, tensor, node.name, *windows, edges)
    else:
        i.builder.max_pool(node.name, tensor, node.name, *windows, edges)
    i.put_first(node, i.made(node, image))


def adaptive_pool(i: Importer, node: Node, a: Arguments) -> None:
    """Windows that divide a map into so many parts."""
    dimensions = 1 if "1d" in operation(node) else 2
    image = i.window(node, a["self"], dimensions)
    sizes = i.view(node, a["self"]).shape[2:]
    wanted = per_dimension(a["output_size"], dimensions)
    if min(wanted) < 1 or any(size % count for size, count in zip(sizes, wanted, strict=True)):
        raise i.refuse(node, f"an output of {wanted} from {sizes}; only whole divisors are supported")
    kernel = image.pair(lambda axis: sizes[axis - 2] // wanted[axis - 2], 1)
    _reduce(i, node, image, kernel, "max" in operation(node))
    i.put_first(node, i.made(node, image))


def _reduce(i: Importer, node: Node, image: Image, kernel: Pair, largest: bool) -> None:
    if kernel == (1, 1):
        i.builder.alias(node.name, image.tensor)
    elif largest:
        i.builder.max_pool(node.name, image.tensor, node.name, kernel, kernel, (0, 0, 0, 0))
    else:
        i.builder.average_pool(node.name, image.tensor, node.name, kernel, kernel)


def total(i: Importer, node: Node, a: Arguments) -> None:
    """The sum over whole axes: so many times their mean."""
    mean(i, node, a)
    before, made = i.view(node, a["self"]), i.views.pop(node.name)
    count = math.prod(before.shape) / max(1, math.prod(made.shape))
    channels = i.builder.shape(made.tensor)[2]
    name = f"{node.name}/sum"
    i.builder.scaled(name, made.tensor, name, np.full(channels, count), np.zeros(channels))
    i.put_first(node, View(name, made.sizes, made.axes))


def mean(i: Importer, node: Node, a: Arguments) -> None:
    """The mean or the largest value over whole axes."""
    view = i.view(node, a["self"])
    rank = len(view.axes)
    over = axes_of(a["dim"], rank) if a.get("dim") not in (None, []) else tuple(range(rank))
    places = i.layouts.natural(view, over)
    if places is None:
        raise i.refuse(node, f"over the axes {over} of a tensor of {view.shape}")
    image = i.image(node, view, places)
    kernel = image.pair(lambda axis: view.shape[axis] if axis in over else 1, 1)
    _reduce(i, node, image, kernel, "max" in operation(node))
    made = i.made(node, image)
    kept = made.axes if a.get("keepdim") else tuple(axis for k, axis in enumerate(made.axes) if k not in over)
    i.put_first(node, View(made.tensor, made.sizes, kept))
