# SPDX-License-Identifier: Apache-2.0
"""PyTorch programs (torch.export) to the IR. One row of HANDLERS per ATen operation.

Both forms are read: the graph as exported, with in-place operations, and the one that
ExportedProgram.run_decompositions leaves.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import MedyateError, ModelError, ToolchainError
from medyate.frontends.builder import GraphBuilder, triple
from medyate.ir import Imported, Shape, elements
from medyate.ops._spatial import Pads, Pair

try:
    import torch

    from medyate.frontends.pt2_archive import check_archive
except ImportError as error:
    raise ToolchainError(
        "reading .pt2 files needs PyTorch.", "Install it with: pip install 'medyate[torch]'."
    ) from error

Array = NDArray[np.float32]
Node = torch.fx.Node
Arguments = Mapping[str, Any]
LIMITS = ("start", "stop", "step")


class _Importer:
    """One pass over a program's nodes."""

    def __init__(self, program: torch.export.ExportedProgram, name: str) -> None:
        signature = program.graph_signature
        inputs, outputs = signature.user_inputs, signature.user_outputs
        if len(inputs) != 1 or len(outputs) != 1 or not isinstance(outputs[0], str):
            raise ModelError(
                f"'{name}' has {len(inputs)} inputs and {len(outputs)} outputs.",
                "Export a classifier that takes one tensor and returns one.",
            )
        self.graph = program.graph
        self.output = outputs[0]
        self.targets: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        arrays = {**program.constants, **program.state_dict}
        self.constants: dict[str, Array] = {
            placeholder: arrays[target].detach().to("cpu", torch.float32).numpy()
            for placeholder, target in self.targets.items()
        }
        values = {node.name: node.meta.get("val") for node in self.graph.nodes}
        shape = _input_shape(name, values.get(str(inputs[0])))
        self.builder = GraphBuilder(name, str(inputs[0]), shape, SUPPORTED)

    def constant(self, node: Node, value: Any) -> Array:
        """The array of a parameter or buffer."""
        if not isinstance(value, Node) or value.name not in self.constants:
            raise self.refuse(node, f"'{value}' is not a constant")
        return self.constants[value.name]

    def optional(self, node: Node, value: Any) -> Array | None:
        """The array of a parameter that may be left out."""
        return None if value is None else self.constant(node, value)

    def layer(self, node: Node, weight: Any) -> str:
        """A weighted node is called like the module that owns its weight."""
        owner = self.targets.get(getattr(weight, "name", ""), "").rpartition(".")[0]
        return owner or node.name

    def map(self, node: Node, value: Any) -> str:
        """The tensor of an argument that must be a map (N, C, H, W)."""
        if isinstance(value, Node) and value.name not in self.constants:
            height, width, channels = self.builder.shape(value.name)
            if _shape(value)[1:] == (channels, height, width):
                return value.name
        raise self.refuse(node, f"'{value}' is not a map of (1, C, H, W)")

    def refuse(self, node: Node, why: str) -> ModelError:
        """The error for a node that cannot be imported."""
        return self.builder.refuse(node.name, _key(node), why)

    def run(self) -> Imported:
        """Imports every node. Raises UnsupportedOpError for the first that has no row."""
        calls = [node for node in self.graph.nodes if node.op not in ("placeholder", "output")]
        for node in calls:
            if _key(node) not in HANDLERS:
                raise self.refuse(node, "there is no such operation here")
        self._check_overwrites(calls)
        for node in calls:
            HANDLERS[_key(node)](self, node, _arguments(node))
        return self.builder.finish(self.output)

    def _check_overwrites(self, calls: list[Node]) -> None:
        """Refuses an in-place operation whose operand is read again under an older name."""
        order = {node: position for position, node in enumerate(self.graph.nodes)}
        names: dict[Node, list[Node]] = {}  # every name of a storage, by each of them
        for node in calls:
            source = node.args[0] if node.args else None
            overwrites = _key(node).rpartition(".")[0].endswith("_")
            if not isinstance(source, Node) or not (overwrites or HANDLERS[_key(node)] in VIEWS):
                continue
            shared = names.setdefault(source, [source])
            readers = [user for name in shared for user in name.users] if overwrites else []
            if any(order[user] > order[node] for user in readers):
                raise self.refuse(node, f"it overwrites '{source}', which is read again behind it")
            shared.append(node)
            names[node] = shared


def _key(node: Node) -> str:
    target = node.target
    return str(target) if hasattr(target, "_schema") else getattr(target, "__name__", str(target))


def _arguments(node: Node) -> Arguments:
    """Every argument by the name that it has in the operation's schema, defaults included."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(position): value for position, value in enumerate(node.args)}
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    given.update(node.kwargs)
    return {a.name: given.get(a.name, a.default_value) for a in schema.arguments}


def _shape(node: Node) -> tuple[Any, ...]:
    """Sizes as traced: (N, C, H, W) or fewer; a symbolic one is no int."""
    return tuple(node.meta["val"].shape)


def _input_shape(name: str, value: Any) -> Shape:
    dims = list(getattr(value, "shape", ()))
    fixed = all(isinstance(d, int) for d in dims[1:])
    if len(dims) != 4 or not fixed or (isinstance(dims[0], int) and dims[0] != 1):
        raise ModelError(
            f"'{name}' takes an input of {dims}; one image (1, C, H, W) is expected.",
            "Export it with a batch of 1 (or symbolic) and fixed height and width.",
        )
    return dims[2], dims[3], dims[1]


def _pair(value: Any) -> Pair:
    return (int(value[0]), int(value[-1])) if isinstance(value, (list, tuple)) else (int(value),) * 2


def _pads(padding: Any, kernel: Pair, dilation: Pair) -> Pads:
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        top, left = (dilation[k] * (kernel[k] - 1) // 2 for k in range(2))
        return top, left, dilation[0] * (kernel[0] - 1) - top, dilation[1] * (kernel[1] - 1) - left
    height, width = _pair(padding)
    return height, width, height, width


def _conv(i: _Importer, node: Node, a: Arguments) -> None:
    if a.get("transposed", False):
        raise i.refuse(node, "a transposed convolution")
    weight = i.constant(node, a["weight"])
    if weight.ndim != 4:
        raise i.refuse(node, f"a kernel of {weight.ndim - 2} dimensions")
    dilation = _pair(a["dilation"])
    pads = _pads(a["padding"], (weight.shape[2], weight.shape[3]), dilation)
    i.builder.convolution(
        i.layer(node, a["weight"]),
        i.map(node, a["input"]),
        node.name,
        weight.transpose(0, 2, 3, 1),
        i.optional(node, a["bias"]),
        _pair(a["stride"]),
        pads,
        dilation,
        a["groups"],
    )


def _affine(i: _Importer, node: Node, source: Node, weight: Any, array: Array, bias: Any) -> None:
    if len(_shape(source)) != 2:
        raise i.refuse(node, "its input is not flat")
    i.builder.linear(i.layer(node, weight), source.name, node.name, array, i.optional(node, bias))


def _linear(i: _Importer, node: Node, a: Arguments) -> None:
    _affine(i, node, a["input"], a["weight"], i.constant(node, a["weight"]), a["bias"])


def _addmm(i: _Importer, node: Node, a: Arguments) -> None:
    if a["alpha"] != 1 or a["beta"] != 1:
        raise i.refuse(node, "alpha or beta is not 1")
    _affine(i, node, a["mat1"], a["mat2"], i.constant(node, a["mat2"]).T, a["self"])


def _batch_norm(i: _Importer, node: Node, a: Arguments) -> None:
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
    name = i.layer(node, a["running_mean"])
    i.builder.batch_norm(name, a["input"].name, node.name, statistics, a["eps"])


def _getitem(i: _Importer, node: Node, a: Arguments) -> None:
    if a["1"] == 0:
        i.builder.alias(node.name, a["0"].name)
    elif node.users:
        raise i.refuse(node, "only the first result is there in inference")


def _relu(i: _Importer, node: Node, a: Arguments) -> None:
    high = 6.0 if "relu6" in _key(node) else math.inf
    i.builder.clip(node.name, a["self"].name, node.name, 0.0, high)


def _clamp(i: _Importer, node: Node, a: Arguments) -> None:
    low, high = (a.get(f"{end}_val", a.get(end)) for end in ("min", "max"))
    bounds = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    i.builder.clip(node.name, a["self"].name, node.name, *bounds)


def _add(i: _Importer, node: Node, a: Arguments) -> None:
    for side in (a["self"], a["other"]):
        if not isinstance(side, Node) or side.name in i.constants:
            raise i.refuse(node, "one side is a constant")
    if a["alpha"] != 1 or _shape(a["self"]) != _shape(a["other"]):
        raise i.refuse(node, "it scales one side, or the sides have different shapes")
    i.builder.add(node.name, a["self"].name, a["other"].name, node.name)


def _average_pool(i: _Importer, node: Node, a: Arguments) -> None:
    if any(_pair(a["padding"])) or a["ceil_mode"] or a["divisor_override"] is not None:
        raise i.refuse(node, "padding, ceil_mode or divisor_override")
    kernel = _pair(a["kernel_size"])
    stride = _pair(a["stride"]) if a["stride"] else kernel
    i.builder.average_pool(node.name, i.map(node, a["self"]), node.name, kernel, stride)


def _adaptive_pool(i: _Importer, node: Node, a: Arguments) -> None:
    if _pair(a["output_size"]) != (1, 1):
        raise i.refuse(node, f"an output of {a['output_size']}; only (1, 1) is taken")
    i.builder.average_pool(node.name, i.map(node, a["self"]), node.name, (0, 0), (0, 0))


def _mean(i: _Importer, node: Node, a: Arguments) -> None:
    if sorted(axis % 4 for axis in a["dim"] or ()) != [2, 3]:
        raise i.refuse(node, f"a mean over the axes {a['dim']}; only (2, 3) at once is taken")
    i.builder.average_pool(node.name, i.map(node, a["self"]), node.name, (0, 0), (0, 0))


def _same(i: _Importer, node: Node, a: Arguments) -> None:
    i.builder.alias(node.name, a["self"].name)


def _dropout(i: _Importer, node: Node, a: Arguments) -> None:
    if a["train"]:
        raise i.refuse(node, "it drops at random; export behind module.eval()")
    i.builder.alias(node.name, a["input"].name)


def _reshape(i: _Importer, node: Node, a: Arguments) -> None:
    source = a["self"].name
    extent = i.builder.shape(source)
    height, width, channels = extent
    target = _shape(node)[1:]
    flat = target == (elements(extent),)
    vector = (height, width) == (1, 1) and target == (channels, *[1] * (len(target) - 1))
    if not (flat or vector or target == (channels, height, width)):
        raise i.refuse(node, f"from {_shape(a['self'])} to {_shape(node)} is no flattening")
    i.builder.alias(node.name, source, flat=flat)


def _permute(i: _Importer, node: Node, a: Arguments) -> None:
    source = a["self"].name
    axes = a.get("dims", (1, 0))
    if source in i.constants:
        i.constants[node.name] = i.constants[source].transpose(axes)
        i.targets[node.name] = i.targets.get(source, "")
    elif len(axes) == 4 and axes[0] == 0 and i.builder.shape(source)[:2] == (1, 1):
        i.builder.alias(node.name, source)
    else:
        raise i.refuse(node, "it reorders a map")


def _softmax(i: _Importer, node: Node, a: Arguments) -> None:
    if len(_shape(a["self"])) != 2 or a["dim"] not in (1, -1):
        raise i.refuse(node, "it does not run over the classes of a vector")
    i.builder.softmax(node.name, a["self"].name, node.name)


def _slice(i: _Importer, node: Node, a: Arguments) -> None:
    source = i.map(node, a["self"])
    axis, start, end, step = a["dim"] % 4, a["start"] or 0, a["end"], a["step"]
    size = _shape(a["self"])[axis]
    endless = end is None or (isinstance(end, int) and end >= torch.iinfo(torch.int64).max)
    if axis == 0 and start == 0 and step == 1 and (endless or end == size):
        i.builder.alias(node.name, source)
        return
    if axis == 0 or not isinstance(size, int) or not (endless or isinstance(end, int)):
        raise i.refuse(node, "it takes samples apart, or has symbolic bounds")
    part = range(*slice(start, None if endless else end, step).indices(size))
    parts = [range(s) for s in i.builder.shape(source)]
    parts[(-1, 2, 0, 1)[axis]] = part
    i.builder.slice(node.name, source, node.name, *(triple(getattr(r, k) for r in parts) for k in LIMITS))


def _pad(i: _Importer, node: Node, a: Arguments) -> None:
    pads = [0] * 8  # (before, behind) of the width, height, channels, batch
    pads[: len(a["pad"])] = a["pad"]
    if a.get("mode", "constant") != "constant" or (a["value"] or 0.0) != 0.0:
        raise i.refuse(node, "only zeros can be added")
    if pads[6] or pads[7]:
        raise i.refuse(node, "it adds samples")
    before, behind = triple(pads[k] for k in (2, 0, 4)), triple(pads[k] for k in (3, 1, 5))
    i.builder.pad(node.name, i.map(node, a["self"]), node.name, before, behind)


def _nothing(_: _Importer, __: Node, ___: Arguments) -> None:
    """A size that only a reshape reads, which goes by the traced shape."""


HANDLERS: Mapping[str, Callable[[_Importer, Node, Arguments], None]] = {
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.convolution.default": _conv,
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
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
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.avg_pool2d.default": _average_pool,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.mean.dim": _mean,
    "aten.flatten.using_ints": _reshape,
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.sym_size.int": _nothing,
    "aten.permute.default": _permute,
    "aten.t.default": _permute,
    "aten.dropout.default": _dropout,
    "aten.feature_dropout.default": _dropout,
    "aten.contiguous.default": _same,
    "aten.clone.default": _same,
    "aten.alias.default": _same,
    "aten.detach.default": _same,
    "aten.softmax.int": _softmax,
    "aten._softmax.default": _softmax,
    "aten.slice.Tensor": _slice,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
}
SUPPORTED = tuple(HANDLERS)
VIEWS = frozenset({_same, _dropout, _reshape, _permute, _slice})
"""Handlers of operations whose result may share its operand's storage."""


def from_module(module: torch.nn.Module, example: torch.Tensor, name: str) -> Imported:
    """Imports a module as it is in evaluation mode; the module itself is left as it was.

    `example` is one image (1, C, H, W). Raises ModelError, or UnsupportedOpError naming the node.
    """
    try:
        program = torch.export.export(copy.deepcopy(module).eval(), (example,))
    except Exception as error:  # tracing runs the module's own code
        raise ModelError(
            f"'{name}' cannot be exported ({_reason(error)}).",
            "Keep decisions on tensor values out of forward, and pass one image (1, C, H, W).",
        ) from error
    return _Importer(program, name).run()


def load(path: Path) -> Imported:
    """Reads a file of torch.export.save. Raises ModelError, or UnsupportedOpError naming the node."""
    return _Importer(read(path), path.stem).run()


def read(path: Path) -> torch.export.ExportedProgram:
    """Reads a file of torch.export.save. Raises ModelError, or UnsupportedOpError naming the node.

    A file that carries pickled objects or compiled code is refused before anything is unpickled.
    """
    if not path.is_file():
        raise ModelError(f"'{path}' does not exist.", "Check the path.")
    try:
        check_archive(path)
        return torch.export.load(path)
    except MedyateError:
        raise
    except Exception as error:  # zip, JSON and schema errors share no base
        raise ModelError(
            f"'{path}' is not a sound .pt2 file ({_reason(error)}).",
            "Save it again with torch.export.save.",
        ) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]
