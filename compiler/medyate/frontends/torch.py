# SPDX-License-Identifier: Apache-2.0
"""PyTorch programs (torch.export) to the IR. One row of HANDLERS per ATen operation.

Both forms are read: the graph as exported, with in-place operations, and the one that
ExportedProgram.run_decompositions leaves. What reads constants only is worked out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medyate.errors import MedyateError, ModelError, ToolchainError
from medyate.frontends.builder import triple
from medyate.frontends.layout import Image, View, read_as
from medyate.ir import Imported
from medyate.ops._spatial import Pair

try:
    import torch

    from medyate.frontends.pointwise import Recognised, recognise
    from medyate.frontends.pt2_archive import check_archive
    from medyate.frontends.torch_program import (
        RANK,
        Arguments,
        Array,
        Importer,
        Node,
        arguments,
        around,
        axes_of,
        axis_of,
        axis_order,
        is_tensor,
        one_sample,
        operation,
        paddings,
        per_dimension,
        program_input,
        reason,
        traced_shape,
        whole_number,
    )
except ImportError as error:
    raise ToolchainError(
        "reading .pt2 files needs PyTorch.", "Install it with: pip install 'medyate[torch]'."
    ) from error

Handler = Callable[[Importer, Node, Arguments], None]


def _run(i: Importer) -> Imported:
    """Imports what the output depends on. Raises UnsupportedOpError for the first node that has no row."""
    calls = [node for node in i.graph.nodes if node.op not in ("placeholder", "output")]
    _check_overwrites(i, calls)
    for node in calls:
        if operation(node) in HANDLERS and i.is_foldable(node):
            i.fold(node)
    functions = recognise(calls, i.constants)
    for node in _live(i, calls, functions):
        if operation(node) not in HANDLERS and node not in functions:
            raise i.refuse(node, "there is no such operation here")
        try:
            if node in functions:
                function = functions[node].function
                _apply(i, node, functions[node].source, function.kind, function.low, function.high)
            else:
                HANDLERS[operation(node)](i, node, arguments(node))
        except MedyateError:
            raise
        except Exception as error:  # a damaged file gives any operation any argument
            raise i.refuse(node, f"its arguments are of no use ({reason(error)})") from error
    return i.finish()


def _live(i: Importer, calls: list[Node], functions: Mapping[Node, Recognised]) -> list[Node]:
    """What the output depends on, constants and the insides of recognised functions left out."""
    wanted = {i.output}
    found = []
    for node in reversed(calls):
        if node.name in wanted and node.name not in i.constants:
            wanted.update(n.name for n in ([functions[node].source] if node in functions else node.all_input_nodes))
            found.append(node)
    return found[::-1]


def _check_overwrites(i: Importer, calls: list[Node]) -> None:
    """Refuses an in-place operation whose operand is read again under an older name."""
    order = {node: position for position, node in enumerate(i.graph.nodes)}
    names: dict[Node, list[Node]] = {}  # every name of a storage, by each of them
    for node in calls:
        source = node.args[0] if node.args else None
        overwrites = operation(node).rpartition(".")[0].endswith("_")
        if not isinstance(source, Node) or not (overwrites or HANDLERS.get(operation(node)) in VIEWS):
            continue
        shared = names.setdefault(source, [source])
        readers = [user for name in shared for user in name.users] if overwrites else []
        if any(order[user] > order[node] for user in readers):
            raise i.refuse(node, f"it overwrites '{source}', which is read again behind it")
        shared.append(node)
        names[node] = shared


# --- layers ---


def _conv(i: Importer, node: Node, a: Arguments) -> None:
    if a.get("transposed", False):
        raise i.refuse(node, "a transposed convolution")
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


def _linear(i: Importer, node: Node, a: Arguments) -> None:
    _affine(i, node, a["input"], a["weight"], i.constant(node, a["weight"]), a["bias"])


def _addmm(i: Importer, node: Node, a: Arguments) -> None:
    if a["alpha"] != 1 or a["beta"] != 1:
        raise i.refuse(node, "alpha or beta is not 1")
    _affine(i, node, a["mat1"], a["mat2"], i.constant(node, a["mat2"]).T, a["self"])


def _matmul(i: Importer, node: Node, a: Arguments) -> None:
    weight = a["mat2"] if "mat2" in a else a["other"]
    array = i.constant(node, weight)
    if array.ndim == 3 and (array == array[:1]).all():  # decomposed: the same layer over every row of a map
        array = array[0]
    _affine(i, node, a["self"], weight, array.T, None)


def _batch_norm(i: Importer, node: Node, a: Arguments) -> None:
    if a.get("training", False) or a["running_mean"] is None or a["running_var"] is None:
        raise i.refuse(node, "it works out statistics of the batch; export behind module.eval()")
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
    _put_first(i, node, View(node.name, view.sizes, view.axes))


def _getitem(i: Importer, node: Node, a: Arguments) -> None:
    part = f"{a['0'].name}/{a['1']}"
    if part in i.views:
        i.put(node, i.views[part])
    elif node.users:
        raise i.refuse(node, "only the first result is there in inference")


# --- functions of one value ---


def _apply(i: Importer, node: Node, source: Any, kind: str, low: float = 0.0, high: float = 0.0) -> None:
    view = i.view(node, source)
    if kind == "clip":
        i.builder.clip(node.name, view.tensor, node.name, low, high)
    else:
        i.builder.function(node.name, kind, view.tensor, node.name, low, high)
    i.put(node, View(node.name, view.sizes, view.axes))


def _relu(i: Importer, node: Node, a: Arguments) -> None:
    _apply(i, node, a["self"], "clip", 0.0, 6.0 if "relu6" in operation(node) else math.inf)


def _clamp(i: Importer, node: Node, a: Arguments) -> None:
    low, high = (a.get(f"{end}_val", a.get(end)) for end in ("min", "max"))
    bounds = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    _apply(i, node, a["self"], "clip", *bounds)


def _bound(i: Importer, node: Node, a: Arguments) -> None:
    source, limit = (a["other"], a["self"]) if i.is_constant(a["self"]) else (a["self"], a["other"])
    numbers = i.numbers(node, limit) if i.is_constant(limit) else np.zeros(0)
    if numbers.size != 1:
        raise i.refuse(node, "only the bound by one number is taken")
    upper = "minimum" in operation(node)
    _apply(i, node, source, "clip", -math.inf if upper else numbers.item(), numbers.item() if upper else math.inf)


def _leaky(i: Importer, node: Node, a: Arguments) -> None:
    _apply(i, node, a["self"], "leaky_relu", float(a["negative_slope"]))


def _prelu(i: Importer, node: Node, a: Arguments) -> None:
    slope = i.constant(node, a["weight"])
    if slope.size != 1:
        raise i.refuse(node, "a slope for every channel")
    _apply(i, node, a["self"], "leaky_relu", slope.item())


def _function(kind: str, **fixed: Any) -> Handler:
    """The handler of a function without parameters, or whose parameters must be these."""

    def handler(i: Importer, node: Node, a: Arguments) -> None:
        for name, value in fixed.items():
            if a[name] != value:
                raise i.refuse(node, f"its {name} is {a[name]}; only {value} is taken")
        _apply(i, node, a["self"], kind)

    return handler


# --- arithmetic ---


def _scaled(i: Importer, node: Node, view: View, scale: Any, shift: Any, output: str) -> View:
    """View * scale + shift with constants: numbers, or one for each position of an axis."""
    scale, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
    rank = len(view.axes)
    for array in (scale, shift):
        if array.size > 1 and array.ndim > rank:
            raise i.refuse(node, f"a constant of {array.shape} beside a tensor of {view.shape}")
    arrays = [np.broadcast_to(array, [1] * (rank - array.ndim) + [*array.shape]) for array in (scale, shift)]
    axes = sorted({axis for array in arrays for axis in range(rank) if array.size > 1 and array.shape[axis] > 1})
    if len(axes) > 1 or any(array.shape[axis] not in (1, view.shape[axis]) for array in arrays for axis in axes):
        raise i.refuse(node, "a constant that is neither one number nor one for each channel")
    if axes:
        view = i.with_channels(node, view, axes[0])
    channels = i.builder.shape(view.tensor)[2]
    gamma, beta = (np.broadcast_to(array.reshape(-1), (channels,)) for array in arrays)
    statistics = tuple(np.asarray(array) for array in (gamma, beta, np.zeros(channels), np.ones(channels)))
    i.builder.batch_norm(output, view.tensor, output, (statistics[0], statistics[1], statistics[2], statistics[3]), 0.0)
    return View(output, view.sizes, view.axes)


def _add(i: Importer, node: Node, a: Arguments) -> None:
    """A sum or difference: self + alpha * other."""
    factor = -1.0 if "sub" in operation(node) else 1.0
    first, second = a["self"], a["other"]
    if "rsub" in operation(node):
        first, second = second, first
    factor *= float(a["alpha"])
    if i.is_constant(second):
        i.put(node, _scaled(i, node, i.view(node, first), 1.0, factor * i.numbers(node, second), node.name))
        return
    other = i.view(node, second)
    if i.is_constant(first):
        i.put(node, _scaled(i, node, other, factor, i.numbers(node, first), node.name))
        return
    view = i.view(node, first)
    if view.shape != other.shape:
        raise i.refuse(node, f"the sides have different shapes, {view.shape} and {other.shape}")
    if factor != 1.0:
        other = _scaled(i, node, other, factor, 0.0, f"{node.name}/scaled")
    view, other = _side_by_side(i, node, view, other)
    i.builder.add(node.name, view.tensor, other.tensor, node.name)
    i.put(node, View(node.name, view.sizes, view.axes))


def _side_by_side(i: Importer, node: Node, view: View, other: View) -> tuple[View, View]:
    """Two tensors of one shape with their values in one order."""
    found = i.layouts.beside(node.name, view, other)
    if found is not None:
        return view, found
    found = i.layouts.beside(node.name, other, view)
    if found is None:
        raise i.refuse(node, "its sides lie in orders that do not meet")
    return found, other


def _mul(i: Importer, node: Node, a: Arguments) -> None:
    first, second = a["self"], a["other"]
    if i.is_constant(first):
        first, second = second, first
    if i.is_constant(second):
        i.put(node, _scaled(i, node, i.view(node, first), i.numbers(node, second), 0.0, node.name))
        return
    views = [i.views[side.name] if side.name in i.expanded else i.view(node, side) for side in (first, second)]
    views.sort(key=lambda view: -math.prod(view.shape))
    view, factor = views
    if view.shape == factor.shape:
        view, factor = _side_by_side(i, node, view, factor)
        i.builder.mul(node.name, view.tensor, factor.tensor, node.name)
        i.put(node, View(node.name, view.sizes, view.axes))
        return
    missing = len(view.axes) - len(factor.axes)
    filled = [missing + axis for axis, factors in enumerate(factor.axes) if factors]
    if missing < 0 or len(filled) != 1 or view.shape[filled[0]] != factor.shape[filled[0] - missing]:
        raise i.refuse(node, f"a product of {view.shape} and {factor.shape}; one factor for each channel is taken")
    image = i.channels(node, view, filled[0])
    column = i.image(node, factor, (None, None, filled[0] - missing))
    i.builder.mul(node.name, image.tensor, column.tensor, node.name)
    i.put(node, i.made(node, image))


def _div(i: Importer, node: Node, a: Arguments) -> None:
    if not i.is_constant(a["other"]) or a.get("rounding_mode") is not None:
        raise i.refuse(node, "only the division by a constant is taken, without rounding")
    with np.errstate(divide="ignore"):  # verify() names the node that divides by zero
        scale = 1.0 / i.numbers(node, a["other"])
    i.put(node, _scaled(i, node, i.view(node, a["self"]), scale, 0.0, node.name))


def _neg(i: Importer, node: Node, a: Arguments) -> None:
    i.put(node, _scaled(i, node, i.view(node, a["self"]), -1.0, 0.0, node.name))


# --- pools ---


def _pool(i: Importer, node: Node, a: Arguments) -> None:
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
    if (average and (a.get("divisor_override") or area) != area) or (counted and any(behind)):
        raise i.refuse(node, "divisor_override, or ceil_mode beside padding that counts")
    edges = around(image, [(before, last + more) for (before, last), more in zip(pads, behind, strict=True)])
    windows = image.pair(lambda axis: kernel[axis - 2], 1), image.pair(lambda axis: stride[axis - 2], 1)
    tensor = image.tensor
    if counted:
        i.builder.pad(f"{node.name}/pad", tensor, f"{node.name}/pad", (*edges[:2], 0), (*edges[2:], 0))
        tensor, edges = f"{node.name}/pad", (0, 0, 0, 0)
    if average:
        i.builder.average_pool(node.name, tensor, node.name, *windows, edges)
    else:
        i.builder.max_pool(node.name, tensor, node.name, *windows, edges)
    _put_first(i, node, i.made(node, image))


def _put_first(i: Importer, node: Node, view: View) -> None:
    """The only result, or the first of several."""
    if is_tensor(node):
        i.put(node, view)
    else:
        i.views[f"{node.name}/0"] = view


def _adaptive_pool(i: Importer, node: Node, a: Arguments) -> None:
    dimensions = 1 if "1d" in operation(node) else 2
    image = i.window(node, a["self"], dimensions)
    sizes = i.view(node, a["self"]).shape[2:]
    wanted = per_dimension(a["output_size"], dimensions)
    if min(wanted) < 1 or any(size % count for size, count in zip(sizes, wanted, strict=True)):
        raise i.refuse(node, f"an output of {wanted} from {sizes}; only whole divisors are taken")
    kernel = image.pair(lambda axis: sizes[axis - 2] // wanted[axis - 2], 1)
    _reduce(i, node, image, kernel, "max" in operation(node))
    _put_first(i, node, i.made(node, image))


def _reduce(i: Importer, node: Node, image: Image, kernel: Pair, largest: bool) -> None:
    if kernel == (1, 1):
        i.builder.alias(node.name, image.tensor)
    elif largest:
        i.builder.max_pool(node.name, image.tensor, node.name, kernel, kernel, (0, 0, 0, 0))
    else:
        i.builder.average_pool(node.name, image.tensor, node.name, kernel, kernel)


def _mean(i: Importer, node: Node, a: Arguments) -> None:
    """The mean or the largest value over whole axes."""
    view = i.view(node, a["self"])
    rank = len(view.axes)
    over = axes_of(a["dim"], rank) if a.get("dim") not in (None, []) else tuple(range(rank))
    places = i.layouts.natural(view, over)
    if places is None:
        raise i.refuse(node, f"over the axes {over} of a tensor of {view.shape}")
    image = i.image(node, view, places)
    kernel = image.pair(lambda axis: view.shape[axis] if axis in over else 1, 1)
    _reduce(i, node, image, kernel, "mean" not in operation(node))
    made = i.made(node, image)
    kept = made.axes if a.get("keepdim") else tuple(axis for k, axis in enumerate(made.axes) if k not in over)
    _put_first(i, node, View(made.tensor, made.sizes, kept))


# --- the same values ---


def _same(i: Importer, node: Node, a: Arguments) -> None:
    i.put(node, i.view(node, a["self"]))


def _dropout(i: Importer, node: Node, a: Arguments) -> None:
    if a["train"]:
        raise i.refuse(node, "it drops at random; export behind module.eval()")
    i.put(node, i.view(node, a["input"] if "input" in a else a["self"]))


def _cast(i: Importer, node: Node, a: Arguments) -> None:
    if node.meta["val"].dtype != torch.float32:
        raise i.refuse(node, f"its result is of {node.meta['val'].dtype}; only float32 is taken")
    i.put(node, i.view(node, a["self"]))


def _reshape(i: Importer, node: Node, a: Arguments) -> None:
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


def _permute(i: Importer, node: Node, a: Arguments) -> None:
    view = i.view(node, a["self"])
    i.put(node, view.permuted(axis_order(a, len(view.axes))))


def _shuffle(i: Importer, node: Node, a: Arguments) -> None:
    view, groups = i.view(node, a["self"]), int(a["groups"])
    batch, channels, *rest = view.shape
    if groups < 1 or channels % groups:
        raise i.refuse(node, f"{groups} groups of {channels} channels")
    split = _reshaped(i, node, view, (batch, groups, channels // groups, *rest))
    order = (0, 2, 1, *range(3, len(split.axes)))
    i.put(node, _reshaped(i, node, split.permuted(order), view.shape))


def _expand(i: Importer, node: Node, a: Arguments) -> None:
    """Only a product reads it, which repeats one factor by itself."""
    view = i.view(node, a["self"])
    i.views[node.name] = view
    if view.shape != traced_shape(node):
        i.expanded.add(node.name)


# --- values elsewhere ---


def _cat(i: Importer, node: Node, a: Arguments) -> None:
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
        raise i.refuse(node, "nothing is left of it")
    start, end = image.triple(lambda k: part.start if k == axis else 0, 0), list(i.builder.shape(image.tensor))
    step = image.triple(lambda k: part.step if k == axis else 1, 1)
    end[image.places.index(axis)] = part.stop
    i.builder.slice(output, image.tensor, output, start, triple(end), step)
    return i.made(node, image, output)


def _slice(i: Importer, node: Node, a: Arguments) -> None:
    view = i.view(node, a["self"])
    axis = axis_of(a["dim"], len(view.axes))
    start, end = (None if value is None else whole_number(value) for value in (a["start"], a["end"]))
    part = range(view.shape[axis])[slice(start, end, int(a["step"]))]
    i.put(node, _part(i, node, view, axis, part, node.name))


def _select(i: Importer, node: Node, a: Arguments) -> None:
    view = i.view(node, a["self"])
    axis = axis_of(a["dim"], len(view.axes))
    index = range(view.shape[axis])[int(a["index"])]
    part = _part(i, node, view, axis, range(index, index + 1), node.name)
    i.put(node, View(part.tensor, part.sizes, (*part.axes[:axis], *part.axes[axis + 1 :])))


def _split(i: Importer, node: Node, a: Arguments) -> None:
    """Parts of one axis, as many and as large as they were traced."""
    view = i.view(node, a["self"])
    axis, start = axis_of(a["dim"], len(view.axes)), 0
    for k, value in enumerate(node.meta["val"]):
        size = one_sample(value.shape[axis])
        part = range(start, start + size)
        i.views[f"{node.name}/{k}"] = _part(i, node, view, axis, part, f"{node.name}/{k}")
        start += size


def _pad(i: Importer, node: Node, a: Arguments) -> None:
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


def _upsample(i: Importer, node: Node, a: Arguments) -> None:
    dimensions = 1 if "1d" in operation(node) else 2
    image = i.window(node, a["input"] if "input" in a else a["self"], dimensions)
    old, new = i.view(node, a["input"] if "input" in a else a["self"]).shape[2:], traced_shape(node)[2:]
    given = a.get("scale_factors") or [a.get(name) for name in ("scales", "scales_h", "scales_w") if name in a]
    times = [size // before for size, before in zip(new, old, strict=True)]
    exact = all(size == before * factor for size, before, factor in zip(new, old, times, strict=True))
    scales = [factor for factor in given if factor is not None]
    if not exact or (scales and [float(s) for s in scales] != [float(t) for t in times]):
        raise i.refuse(node, "it enlarges by no whole number")
    i.builder.enlarge(node.name, image.tensor, node.name, image.pair(lambda axis: times[axis - 2], 1))
    i.put(node, i.made(node, image))


def _index(i: Importer, node: Node, a: Arguments) -> None:
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


def _softmax(i: Importer, node: Node, a: Arguments) -> None:
    view = i.view(node, a["self"])
    axis = axis_of(a["dim"], len(view.axes))
    if any(factors for k, factors in enumerate(view.axes) if k != axis):
        raise i.refuse(node, "it does not run over the classes of a vector")
    image = i.image(node, view, (None, None, axis))
    i.builder.softmax(node.name, image.tensor, node.name)
    i.put(node, i.made(node, image))


def _nothing(_: Importer, __: Node, ___: Arguments) -> None:
    """A size that only a reshape reads, which goes by the traced shape; or a check of one."""


def _constant(i: Importer, node: Node, _: Arguments) -> None:
    raise i.refuse(node, "it reads values that are no constants")


HANDLERS: Mapping[str, Handler] = {
    "aten.conv1d.default": _conv,
    "aten.conv1d.padding": _conv,
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.convolution.default": _conv,
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
    "aten.mm.default": _matmul,
    "aten.bmm.default": _matmul,
    "aten.matmul.default": _matmul,
    "aten.batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "getitem": _getitem,
    "aten.relu.default": _relu,
    "aten.relu_.default": _relu,
    "aten.relu6.default": _relu,
    "aten.relu6_.default": _relu,
    "aten.hardtanh.default": _clamp,
    "aten.hardtanh_.default": _clamp,
    "aten.clamp.default": _clamp,
    "aten.clamp_.default": _clamp,
    "aten.clamp_min.default": _clamp,
    "aten.clamp_min_.default": _clamp,
    "aten.clamp_max.default": _clamp,
    "aten.clamp_max_.default": _clamp,
    "aten.maximum.default": _bound,
    "aten.minimum.default": _bound,
    "aten.leaky_relu.default": _leaky,
    "aten.leaky_relu_.default": _leaky,
    "aten.prelu.default": _prelu,
    "aten.hardswish.default": _function("hard_swish"),
    "aten.hardswish_.default": _function("hard_swish"),
    "aten.hardsigmoid.default": _function("hard_sigmoid"),
    "aten.hardsigmoid_.default": _function("hard_sigmoid"),
    "aten.sigmoid.default": _function("sigmoid"),
    "aten.sigmoid_.default": _function("sigmoid"),
    "aten.tanh.default": _function("tanh"),
    "aten.tanh_.default": _function("tanh"),
    "aten.silu.default": _function("silu"),
    "aten.silu_.default": _function("silu"),
    "aten.gelu.default": _function("gelu", approximate="none"),
    "aten.gelu_.default": _function("gelu", approximate="none"),
    "aten.elu.default": _function("elu", alpha=1, scale=1, input_scale=1),
    "aten.elu_.default": _function("elu", alpha=1, scale=1, input_scale=1),
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.add.Scalar": _add,
    "aten.add_.Scalar": _add,
    "aten.sub.Tensor": _add,
    "aten.sub_.Tensor": _add,
    "aten.sub.Scalar": _add,
    "aten.sub_.Scalar": _add,
    "aten.rsub.Tensor": _add,
    "aten.rsub.Scalar": _add,
    "aten.mul.Tensor": _mul,
    "aten.mul_.Tensor": _mul,
    "aten.mul.Scalar": _mul,
    "aten.mul_.Scalar": _mul,
    "aten.div.Tensor": _div,
    "aten.div_.Tensor": _div,
    "aten.div.Scalar": _div,
    "aten.div_.Scalar": _div,
    "aten.neg.default": _neg,
    "aten.neg_.default": _neg,
    "aten.avg_pool1d.default": _pool,
    "aten.avg_pool2d.default": _pool,
    "aten.max_pool1d.default": _pool,
    "aten.max_pool2d.default": _pool,
    "aten.max_pool2d_with_indices.default": _pool,
    "aten.adaptive_avg_pool1d.default": _adaptive_pool,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten._adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.adaptive_max_pool1d.default": _adaptive_pool,
    "aten.adaptive_max_pool2d.default": _adaptive_pool,
    "aten.mean.default": _mean,
    "aten.mean.dim": _mean,
    "aten.amax.default": _mean,
    "aten.max.dim": _mean,
    "aten.flatten.using_ints": _reshape,
    "aten.unflatten.int": _reshape,
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.squeeze.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.permute.default": _permute,
    "aten.transpose.int": _permute,
    "aten.t.default": _permute,
    "aten.channel_shuffle.default": _shuffle,
    "aten.expand.default": _expand,
    "aten.expand_as.default": _expand,
    "aten.cat.default": _cat,
    "aten.concat.default": _cat,
    "aten.stack.default": _cat,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.chunk.default": _split,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    "aten.upsample_nearest1d.vec": _upsample,
    "aten.upsample_nearest1d.default": _upsample,
    "aten.upsample_nearest2d.vec": _upsample,
    "aten.upsample_nearest2d.default": _upsample,
    "aten._upsample_nearest_exact1d.vec": _upsample,
    "aten._upsample_nearest_exact2d.vec": _upsample,
    "aten.index.Tensor": _index,
    "aten.softmax.int": _softmax,
    "aten._softmax.default": _softmax,
    "aten.dropout.default": _dropout,
    "aten.dropout_.default": _dropout,
    "aten.feature_dropout.default": _dropout,
    "aten.contiguous.default": _same,
    "aten.clone.default": _same,
    "aten.alias.default": _same,
    "aten.detach.default": _same,
    "aten.detach_.default": _same,
    "aten.lift_fresh_copy.default": _same,
    "aten.to.dtype": _cast,
    "aten._to_copy.default": _cast,
    "aten.type_as.default": _cast,
    "aten.sym_size.int": _nothing,
    "aten._assert_tensor_metadata.default": _nothing,
    "aten._assert_scalar.default": _nothing,
    "mul": _nothing,
    "floordiv": _nothing,
    "aten.full.default": _constant,
    "aten.ones.default": _constant,
    "aten.zeros.default": _constant,
    "aten.scalar_tensor.default": _constant,
    "aten.arange.default": _constant,
    "aten.arange.start": _constant,
    "aten.arange.start_step": _constant,
    "aten.sqrt.default": _constant,
    "aten.rsqrt.default": _constant,
    "aten.reciprocal.default": _constant,
}
__all__ = ["HANDLERS", "from_module", "load", "program_input", "read"]
SUPPORTED = tuple(name for name in HANDLERS if "_." not in name and "._" not in name)
"""What a refusal lists: without in-place and internal variants."""
VIEWS: frozenset[Handler] = frozenset(
    {_same, _cast, _dropout, _reshape, _permute, _expand, _slice, _select, _split, _getitem}
)
"""Handlers of operations whose result may share its operand's storage."""


def from_module(module: torch.nn.Module, example: torch.Tensor, name: str) -> Imported:
    """Imports a module as it is in evaluation mode; the module itself is left as it was.

    `example` is one image (1, C, H, W), series (1, C, L) or vector (1, n). Raises ModelError, or
    UnsupportedOpError naming the node.
    """
    try:
        program = torch.export.export(copy.deepcopy(module).eval(), (example,))
    except Exception as error:  # tracing runs the module's own code
        raise ModelError(
            f"'{name}' cannot be exported ({reason(error)}).",
            "Keep decisions on tensor values out of forward, and pass one sample with a batch of 1.",
        ) from error
    return _run(Importer(program, name, SUPPORTED))


def load(path: Path) -> Imported:
    """Imports a file of torch.export.save. Raises ModelError, or UnsupportedOpError naming the node."""
    program = read(path)
    try:
        importer = Importer(program, path.stem, SUPPORTED)
    except (KeyError, AttributeError, StopIteration) as error:
        raise ModelError(
            f"'{path}' lacks a tensor that its graph reads ({reason(error)}).", "Save it again with torch.export.save."
        ) from error
    return _run(importer)


def read(path: Path) -> torch.export.ExportedProgram:
    """Reads a file of torch.export.save. Raises ModelError.

    A file that carries pickled objects or compiled code is refused before anything is unpickled.
    """
    if not path.is_file():
        raise ModelError(f"'{path}' does not exist.", "Check the path.")
    try:
        check_archive(path)
        return torch.export.load(path)
    except MedyateError:
        raise
    except Exception as error:  # zip, JSON, schema and look-up errors share no base
        raise ModelError(
            f"'{path}' is not a sound .pt2 file ({reason(error)}).",
            "Save it again with torch.export.save.",
        ) from error
