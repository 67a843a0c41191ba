# SPDX-License-Identifier: Apache-2.0
"""ATen operations that compute element by element: functions of one value, sums, products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medyate.frontends.layout import View
from medyate.frontends.torch_program import Arguments, Handler, Importer, Node, operation
from medyate.ops.prelu import PRelu

# --- functions of one value ---


def apply(i: Importer, node: Node, source: Any, kind: str, low: float = 0.0, high: float = 0.0) -> None:
    """A function of one value of the IR."""
    view = i.view(node, source)
    if kind == "clip":
        i.builder.clip(node.name, view.tensor, node.name, low, high)
    else:
        i.builder.function(node.name, kind, view.tensor, node.name, low, high)
    i.put(node, View(node.name, view.sizes, view.axes))


def relu(i: Importer, node: Node, a: Arguments) -> None:
    """Relu and relu6."""
    apply(i, node, a["self"], "clip", 0.0, 6.0 if "relu6" in operation(node) else math.inf)


def clamp(i: Importer, node: Node, a: Arguments) -> None:
    """A clamp between two numbers, either of which may be left out."""
    low, high = (a.get(f"{end}_val", a.get(end)) for end in ("min", "max"))
    bounds = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    apply(i, node, a["self"], "clip", *bounds)


def bound(i: Importer, node: Node, a: Arguments) -> None:
    """The smaller or larger of a value and one number, or of two tensors of one shape."""
    source, limit = (a["other"], a["self"]) if i.is_constant(a["self"]) else (a["self"], a["other"])
    numbers = i.numbers(node, limit) if i.is_constant(limit) else None
    if numbers is not None and numbers.size != 1:
        raise i.refuse(node, "only a bound that is one number is supported")
    upper = "minimum" in operation(node)
    if numbers is None:
        _compared(i, node, source, limit, upper)
        return
    apply(i, node, source, "clip", -math.inf if upper else numbers.item(), numbers.item() if upper else math.inf)


def _compared(i: Importer, node: Node, first: Any, second: Any, upper: bool) -> None:
    view, other = i.view(node, first), i.view(node, second)
    if view.shape != other.shape:
        raise i.refuse(node, f"the sides have different shapes, {view.shape} and {other.shape}")
    view, other = _side_by_side(i, node, view, other)
    choose = i.builder.smaller if upper else i.builder.larger
    choose(node.name, view.tensor, other.tensor, node.name)
    i.put(node, View(node.name, view.sizes, view.axes))


def gelu(i: Importer, node: Node, a: Arguments) -> None:
    """By the error function, or its approximation by tanh."""
    apply(i, node, a["self"], "gelu_tanh" if a["approximate"] == "tanh" else "gelu")


def elu(i: Importer, node: Node, a: Arguments) -> None:
    """Elu, or with the constants of selu that function."""
    if (a["alpha"], a["scale"], a["input_scale"]) == (1, 1, 1):
        apply(i, node, a["self"], "elu")
    elif np.allclose((a["alpha"], a["scale"], a["input_scale"]), (*SELU, 1.0), rtol=1e-6):
        apply(i, node, a["self"], "selu")
    else:
        raise i.refuse(node, f"its alpha is {a['alpha']} and its scale {a['scale']}; only 1 is supported")


def square(i: Importer, node: Node, a: Arguments) -> None:
    """The second power."""
    if a.get("exponent", 2) != 2:
        raise i.refuse(node, f"the power {a['exponent']}; only the second is supported")
    apply(i, node, a["self"], "square")


SELU = (1.6732632423543772, 1.0507009873554805)
"""Alpha and scale."""


def leaky(i: Importer, node: Node, a: Arguments) -> None:
    """A slope below zero."""
    apply(i, node, a["self"], "leaky_relu", float(a["negative_slope"]))


def prelu(i: Importer, node: Node, a: Arguments) -> None:
    """A learned slope below zero, one for all channels or one for each."""
    slope = i.constant(node, a["weight"])
    if slope.size == 1:
        apply(i, node, a["self"], "leaky_relu", slope.item())
        return
    view = i.with_channels(node, i.view(node, a["self"]), 1)
    i.builder.emit(node.name, "prelu", PRelu(tuple(slope.tolist())), (view.tensor,), node.name)
    i.put_first(node, View(node.name, view.sizes, view.axes))


def function(kind: str, **fixed: Any) -> Handler:
    """The handler of a function without parameters, or whose parameters must be these."""

    def handler(i: Importer, node: Node, a: Arguments) -> None:
        for name, value in fixed.items():
            if a[name] != value:
                raise i.refuse(node, f"its {name} is {a[name]}; only {value} is supported")
        apply(i, node, a["self"], kind)

    return handler


# --- sums and products ---


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


def add(i: Importer, node: Node, a: Arguments) -> None:
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
        raise i.refuse(node, "its inputs lie in orders of axes that cannot be brought together")
    return found, other


def mul(i: Importer, node: Node, a: Arguments) -> None:
    """A product, with a constant or of two tensors, one of which may hold a factor for each channel."""
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
        raise i.refuse(node, f"a product of {view.shape} and {factor.shape}; one factor for each channel is supported")
    image = i.channels(node, view, filled[0])
    column = i.image(node, factor, (None, None, filled[0] - missing))
    i.builder.mul(node.name, image.tensor, column.tensor, node.name)
    i.put(node, i.made(node, image))


def div(i: Importer, node: Node, a: Arguments) -> None:
    """A quotient by a constant."""
    if not i.is_constant(a["other"]) or a.get("rounding_mode") is not None:
        raise i.refuse(node, "only division by a constant without rounding is supported")
    with np.errstate(divide="ignore"):  # verify() names the node that divides by zero
        scale = 1.0 / i.numbers(node, a["other"])
    i.put(node, _scaled(i, node, i.view(node, a["self"]), scale, 0.0, node.name))


def neg(i: Importer, node: Node, a: Arguments) -> None:
    """The negative value."""
    i.put(node, _scaled(i, node, i.view(node, a["self"]), -1.0, 0.0, node.name))
