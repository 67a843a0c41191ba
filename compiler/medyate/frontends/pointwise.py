# SPDX-License-Identifier: Apache-2.0
"""Which function several operations of a PyTorch program amount to: x * clamp(x + 3, 0, 6) / 6 is hard_swish.

Decomposed programs, and modules written before PyTorch had the function, spell it out. It is
recognised by its values on a grid, whatever the spelling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from medyate.arithmetic.functions import Function
from medyate.ops import OPS

Node = torch.fx.Node
GRID = torch.linspace(-12.0, 12.0, 2401, dtype=torch.float64)
TOLERANCE = 1e-6
SOURCES_MAX = 8
"""How many operations back a function may begin."""
UNARY = (
    *("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_max"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "hardsigmoid", "hardsigmoid_", "exp", "log1p", "neg", "erf"),
)
BINARY = ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_")
WHERE = ("self", "ScalarSelf", "ScalarOther")
POINTWISE = frozenset(
    {f"aten.{name}.default" for name in UNARY}
    | {f"aten.{name}.{overload}" for name in BINARY for overload in ("Tensor", "Scalar")}
    | {f"aten.{name}.{overload}" for name in ("gt", "ge", "lt", "le") for overload in ("Scalar", "Tensor")}
    | {f"aten.where.{overload}" for overload in WHERE}
    | {"aten.rsub.Scalar", "aten.maximum.default", "aten.minimum.default"}
)
ENDS = frozenset(
    {f"aten.{name}.{overload}" for name in ("mul", "mul_", "div", "div_") for overload in ("Tensor", "Scalar")}
    | {f"aten.where.{overload}" for overload in WHERE}
    | {"aten.hardtanh.default", "aten.clamp.default"}
)
"""Operations that a function's spelling ends in."""
KINDS = ("hard_swish", "hard_sigmoid", "silu", "gelu", "gelu_tanh", "elu", "softplus", "mish")


@dataclass(frozen=True)
class Recognised:
    """The function of `source` that a node computes."""

    source: Node
    function: Function


def recognise(nodes: Iterable[Node], constants: Mapping[str, torch.Tensor]) -> dict[Node, Recognised]:
    """The nodes that end the spelling of a known function of one tensor."""
    values: dict[Node, dict[Node, torch.Tensor]] = {}  # on the grid, by the tensor that the grid stands for
    found = {}
    for node in nodes:
        if str(node.target) not in POINTWISE:
            continue
        values[node] = _values(node, values, constants)
        if str(node.target) in ENDS:
            for source, result in values[node].items():
                function = _function(result)
                inner = source in node.all_input_nodes and len(node.all_input_nodes) == 1
                if function is not None and not inner:
                    found[node] = Recognised(source, function)
                    break
    return found


def _values(
    node: Node, values: Mapping[Node, Mapping[Node, torch.Tensor]], constants: Mapping[str, torch.Tensor]
) -> dict[Node, torch.Tensor]:
    """The node's results where one tensor takes the values of the grid and all else is constant."""
    operands = [operand for operand in node.all_input_nodes if operand.name not in constants]
    if not operands or any(constants[n.name].numel() != 1 for n in node.all_input_nodes if n.name in constants):
        return {}
    candidates: dict[Node, None] = {}
    for operand in operands:
        candidates.update(dict.fromkeys([*values.get(operand, ()), operand]))
    results = {}
    for source in list(candidates)[-SOURCES_MAX:]:
        if all(operand is source or source in values.get(operand, ()) for operand in operands):
            result = _result(node, source, values, constants)
            if result is not None and result.shape == GRID.shape:
                results[source] = result
    return results


def _result(
    node: Node,
    source: Node,
    values: Mapping[Node, Mapping[Node, torch.Tensor]],
    constants: Mapping[str, torch.Tensor],
) -> torch.Tensor | None:
    def given(operand: Node) -> torch.Tensor:
        if operand.name in constants:
            return constants[operand.name].detach().to("cpu", torch.float64).reshape(-1)
        return GRID.clone() if operand is source else values[operand][source].clone()

    target: Any = node.target
    try:
        result = target(*torch.fx.map_arg(node.args, given), **torch.fx.map_arg(node.kwargs, given))
    except Exception:  # noqa: BLE001  # a damaged file's arguments: the handler names what is wrong with them
        return None
    return result if isinstance(result, torch.Tensor) else None


def _function(result: torch.Tensor) -> Function | None:
    """The function with these values on the grid."""
    slope = float(result[0] / GRID[0]) if result.dtype.is_floating_point else math.nan
    candidates = [Function(kind) for kind in KINDS]
    if math.isfinite(slope) and slope != 1.0:
        candidates.append(Function("leaky_relu", slope) if slope else Function("clip", 0.0, math.inf))
    for function in candidates:
        known = OPS["activation"].real(function, (GRID,), {})
        if result.dtype == known.dtype and float((result - known).abs().max()) <= TOLERANCE * float(known.abs().max()):
            return function
    return None
