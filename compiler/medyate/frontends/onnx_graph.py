# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph on its way into the IR: its constants, and where the IR holds its tensors.

ONNX tensors are channel-first and may be reshaped at will; the IR's are (height, width, channels). A View
says which tensor of the IR holds the values and in which order they run, so that flattening, reshaping
and transposing cost nothing until an operation needs the values elsewhere. layout.View does that for PyTorch
the other way round: its axes are tied to factors of the IR's tensor, so that any permutation is free and a
reshape across factors is not; here sizes are tied to nothing, so that any reshape is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from medyate import files
from medyate.arithmetic.scheme import QMAX, QMIN, activation_quant
from medyate.errors import MedyateError, ModelError, UnsupportedOpError
from medyate.frontends.builder import LAYOUT, GraphBuilder, chosen, triple
from medyate.ir import Imported, Node, Quant, Shape
from medyate.ops import OPS
from medyate.ops.move import Triple
from medyate.ops.reshape import Reshape

FOLD_MAX = 1 << 25
"""Values of all constants that are worked out here; a small file can ask for huge ones."""
OPSET_MIN = 7
"""Before it, element-wise operations had another broadcasting."""
CHANNELS_FIRST: Triple = (2, 0, 1)
ROWS: Triple = (0, 1, 2)
REAL = ("FLOAT", "FLOAT16", "DOUBLE")
INTEGER = ("INT8", "UINT8")

SPREADING = ("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Equal", "Less", "Greater", "Where", "And", "Or")
FOLDED = (
    *SPREADING,
    *("Constant", "Identity", "Cast", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Floor", "Ceil", "Round", "Not"),
    *("Gather", "Concat", "Slice", "Split", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose"),
    *("Shape", "Size", "ConstantOfShape", "Expand", "Range", "ReduceProd", "ReduceSum", "QuantizeLinear"),
)
"""What is worked out while importing; nothing with a loop in it."""
MOVING = (
    *("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Shape", "Slice", "Split"),
    *("Pad", "Concat", "Resize", "Upsample", "MaxPool", "GlobalMaxPool"),
)
"""What may read stored integers as they are."""
BEFORE_THE_FIRST_LAYER = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Sub", "Div", "Mul", "Add")


@dataclass(frozen=True)
class View:
    """An ONNX tensor as the IR holds it."""

    tensor: str
    dims: tuple[int, ...]
    """Its sizes without the batch."""
    order: Triple
    """Axes of the IR's tensor, slowest first, in the order in which the ONNX values run."""
    integer: str = ""
    """'int8' or 'uint8': the ONNX tensor is the stored integers, not the real numbers."""


@dataclass(frozen=True)
class Stored:
    """A constant that the file holds as integers: scales and zero points of the slices along `axis`."""

    values: NDArray[Any]
    scales: NDArray[np.float64]
    zeros: NDArray[np.int64]
    axis: int


def running(order: Sequence[int], shape: Shape) -> tuple[int, ...]:
    """The axes that say how values run: those of more than one element."""
    return tuple(axis for axis in order if shape[axis] > 1)


def canonical(dims: tuple[int, ...]) -> Shape | None:
    """The IR's shape of a vector (n,), a series (C, L) or a map (C, H, W)."""
    if len(dims) > 3:
        return None
    channels, height, width = (*dims, 1, 1, 1)[:3]
    return height, width, channels


def name_of(node: Any) -> str:
    """A node's name; many exporters leave it out."""
    return str(node.name or (node.output[0] if node.output else node.op_type))


class Importer:
    """One pass over a model's nodes; constants are folded as they appear."""

    def __init__(self, path: Path, model: Any, handlers: Mapping[str, Handler], output: str = "") -> None:
        self.handlers = handlers
        self.model = model
        self._inferred: dict[str, tuple[int, ...]] | None = None
        self.opset_imports = list(model.opset_import)
        self.opset = max((entry.version for entry in self.opset_imports if entry.domain in ("", "ai.onnx")), default=0)
        if self.opset < OPSET_MIN:
            raise ModelError(f"'{path}' is of opset {self.opset}.", "Export it again with opset 11 or newer.")
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.stored: dict[str, Stored] = {}
        self.views: dict[str, View] = {}
        ends = tuple(value.name for value in model.graph.output)
        self.output = chosen(path.stem, ends, output)
        self.nodes = _live(model.graph.node, self.output)
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.skipped: set[str] = set()
        """Outputs of nodes whose work another node has taken over."""
        self.moved: dict[str, tuple[str, ...]] = {}
        """Tensors of the IR that wait for a scale, and those that share it."""
        self.pools: list[tuple[str, str]] = []
        """(output, input) of averages, whose scales may differ and need not."""
        self.requantised: dict[tuple[str, Quant], str] = {}
        self.fixed: set[str] = set()
        """Tensors of the IR whose scale the operation decides."""
        self.end: tuple[Shape, Triple] = ((1, 1, 1), ROWS)
        """Shape of the output's tensor in the IR, and the order in which the file's values run over it."""
        self._laid: dict[tuple[str, Triple, Shape, Triple], str] = {}
        self._added = 0
        self.folded = 0
        inputs = [value for value in model.graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise ModelError(
                f"'{path}' has {len(inputs)} inputs and {len(ends)} outputs.", "Export a network with one input."
            )
        self.quantised = self._is_quantised()
        self._read_input(path, inputs[0])
        self.builder.outputs = ends

    def _is_quantised(self) -> bool:
        """Whether values are quantised, not weights alone."""
        known = set(self.constants)
        for node in self.nodes:
            if all(name in known for name in node.input if name):
                known.update(node.output)
            elif node.op_type.startswith(("QuantizeLinear", "DequantizeLinear", "QLinear", "QGemm")):
                return True
        return False

    # --- the network's input ---

    def _read_input(self, path: Path, value: Any) -> None:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        if kind not in (*REAL, *INTEGER):
            raise ModelError(f"'{path}' takes an input of {kind}.", f"Known: {', '.join((*REAL, *INTEGER))}.")
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if not 2 <= len(sizes) <= 4 or any(d <= 0 for d in sizes[1:]) or not 0 <= sizes[0] <= 1:
            raise ModelError(
                f"'{path}' takes an input of {sizes}; one image (1, C, H, W), series (1, C, L) or vector (1, n) "
                "is expected.",
                "Export it with a batch of 1 (or symbolic) and fixed height and width.",
            )
        dims = tuple(sizes[1:])
        shape, order = self._input_layout(value.name, dims)
        self.builder = GraphBuilder(path.stem, value.name, shape, tuple(self.handlers))
        self.builder.rounds_once = True
        self.builder.taken = {name for node in self.nodes for name in (*node.input, *node.output)} | {value.name}
        self.views[value.name] = View(value.name, dims, order, kind.lower() if kind in INTEGER else "")

    def _input_layout(self, name: str, dims: tuple[int, ...]) -> tuple[Shape, Triple]:
        """(shape, order) of the input: what its first reader makes of it, where that is known already."""
        shape = canonical(dims)
        assert shape is not None
        while len(self.readers.get(name, ())) == 1:
            reader = self.readers[name][0]
            if reader.op_type == "Transpose":
                if [tuple(a.ints) for a in reader.attribute] == [(0, len(dims), *range(1, len(dims)))]:
                    return ((*dims, 1)[0], *((dims[1], dims[2]) if len(dims) == 3 else (1, dims[1]))), ROWS
                break
            if reader.op_type == "Reshape" and reader.input[1] in self.constants:
                target = reshaped(dims, [int(d) for d in self.constants[reader.input[1]].reshape(-1)], copies=True)
                shape = (canonical(target) if target else None) or shape
                break
            if reader.op_type not in BEFORE_THE_FIRST_LAYER:
                break
            name = reader.output[0]
        return shape, CHANNELS_FIRST

    def input_values(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Samples (n, H, W, C) of the IR as the file's input has them: (n, 1, ...)."""
        view = self.views[self.builder.input]
        ordered = samples.transpose(0, *(axis + 1 for axis in view.order))
        return np.ascontiguousarray(ordered.reshape(len(samples), 1, *view.dims))

    def output_values(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs (n, ...) of the file as the IR has them, (n, H * W * C); after `run`."""
        if self.builder.left_out == "argmax":
            return outputs.reshape(len(outputs), -1)
        shape, order = self.end
        values = outputs.reshape(len(outputs), *(shape[axis] for axis in order))
        return values.transpose(0, *(order.index(axis) + 1 for axis in range(3))).reshape(len(outputs), -1)

    # --- nodes ---

    def run(self) -> Imported:
        """Imports every node. Raises ModelError or UnsupportedOpError naming what blocks."""
        lost: set[str] = set()  # what nothing stands in for
        for node in self.nodes:
            try:
                self.step(node)
            except UnsupportedOpError as error:
                if not lost.intersection(node.input) or node.op_type not in self.handlers:
                    self.builder.obstacles.add(error)
                self._stand_in(node)
                lost.update(name for name in node.output if name not in self.views)
        self.builder.obstacles.check()
        if self.output not in self.views:
            raise ModelError("the model holds no layers.", "Export the model in inference mode.")
        view = self.views[self.output]
        tensor = view.tensor
        if self.axes(view) is None:
            shape = canonical(view.dims)
            if shape is None:
                raise ModelError(f"the output has {len(view.dims) + 1} axes.", "Export a network with at most 4.")
            tensor = self.laid(view, shape, CHANNELS_FIRST)
            self.end = shape, CHANNELS_FIRST
        else:
            self.end = self.builder.shape(tensor), view.order
        for output, source in self.pools:
            quant = self.builder.quant(source)
            if quant is not None and self.builder.quant(output) is None:
                self.settle(output, quant)
        self._scale_the_rest()
        return self.builder.finish(tensor)

    def _scale_the_rest(self) -> None:
        """Tensors that a quantised file leaves real get the scale of what their operation can give."""
        for node in self.builder.nodes if self.quantised else ():
            quants = [self.builder.quant(name) for name in node.inputs]
            known = [quant for quant in quants if quant is not None]
            if self.builder.quant(node.output) is None and len(known) == len(quants):
                found = extent(node, known, self.builder.shape(node.inputs[0])[2])
                if found is not None:
                    self.settle(node.output, activation_quant(*found))
                    self.builder.notes.append(f"'{node.name}': its output is real in the file, and int8 here")

    def _stand_in(self, node: Any) -> None:
        """Tensors in the place of those that a node does not make, as large as ONNX itself says."""
        if self._inferred is None:
            self._inferred = _inferred_sizes(self.model)
        first = next((self.views[name].dims for name in node.input if name in self.views), (1,))
        for name in node.output:
            dims = self._inferred.get(name, first)
            shape = canonical(dims)
            if name and name not in self.views and shape is not None:
                self.builder.stand_in(name, shape)
                self.views[name] = View(self.builder.tensor(name), dims, CHANNELS_FIRST)

    def step(self, node: Any) -> None:
        """One node."""
        if node.output and node.output[0] in self.skipped:
            return
        try:
            if all(name in self.constants for name in node.input if name):
                self.fold(node)
            else:
                self._import(node)
        except files.DAMAGE as error:  # an attribute or input that is missing, or of a form that nobody thought of
            why = f"its inputs or attributes are not supported ({files.reason(error)})"
            raise self.refusal(node, why) from error

    def _import(self, node: Any) -> None:
        handler = self.handlers.get(node.op_type)
        microsoft = node.domain == "com.microsoft" and node.op_type.startswith(("Q", "DequantizeLinear"))
        if handler is None or not (node.domain in ("", "ai.onnx") or microsoft):
            self.refuse(node, "the operation is not supported")
        integer = {self.views[name].integer for name in node.input if name in self.views}
        if node.op_type in MOVING:
            handler(self, node)
            for name in node.output:
                if name in self.views:
                    self.views[name] = replace(self.views[name], integer=max(integer))
        elif integer - {""} and not node.op_type.startswith(("QLinear", "QGemm", "DequantizeLinear", "Cast")):
            self.refuse(node, "it computes with stored integers")
        else:
            handler(self, node)

    def refusal(self, node: Any, why: str) -> MedyateError:
        """The error for a node that cannot be imported."""
        return self.builder.refuse(name_of(node), node.op_type, why)

    def refuse(self, node: Any, why: str) -> NoReturn:
        """Raises the error for a node that cannot be imported."""
        raise self.refusal(node, why)

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes by name."""
        return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def given(self, node: Any, position: int) -> str:
        """The name of an optional input; '' when it is left out."""
        return str(node.input[position]) if position < len(node.input) else ""

    # --- constants ---

    def constant(self, node: Any, name: str) -> NDArray[Any]:
        """The values of an input that must be a constant."""
        if name not in self.constants:
            self.refuse(node, f"'{name}' is not a constant")
        return self.constants[name]

    def numbers(self, node: Any, position: int, attribute: str) -> list[int] | None:
        """Whole numbers that newer opsets pass as an input and older ones as an attribute."""
        name = self.given(node, position)
        if name:
            return [int(value) for value in self.constant(node, name).reshape(-1)]
        found = self.attributes(node).get(attribute)
        return None if found is None else [int(value) for value in np.reshape(found, -1)]

    def fold(self, node: Any) -> None:
        """Works out a node that reads constants only, as sizes for a Reshape are made."""
        from onnx.reference import ReferenceEvaluator

        if node.op_type in self.handlers and node.input and node.input[0] in self.stored:
            self._fold_stored(node)
        if node.op_type == "DequantizeLinear":
            self.handlers[node.op_type](self, node)
            return
        if node.op_type not in FOLDED:
            self.refuse(node, "it reads only constants, and cannot be computed at import")
        feeds = {name: self.constants[name] for name in node.input if name}
        self.folded += _folded_size(node.op_type, list(feeds.values()))
        if self.folded > FOLD_MAX:
            self.refuse(node, "it makes a constant that no microcontroller can hold")
        typed = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ]
        outputs = [name for name in node.output if name]
        graph = onnx.helper.make_graph([node], "constant", typed, [onnx.ValueInfoProto(name=name) for name in outputs])
        model = onnx.helper.make_model(graph, opset_imports=self.opset_imports)
        try:
            results = ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # the evaluator's operations raise what they like
            raise self.refusal(node, "its constants cannot be folded") from error
        self.constants.update(zip(outputs, map(np.asarray, results), strict=True))

    def _fold_stored(self, node: Any) -> None:
        """Weights may be turned around between their integers and their layer."""
        source = self.stored[node.input[0]]
        if node.op_type == "Identity":
            self.stored[node.output[0]] = source
        elif node.op_type == "Transpose":
            order = list(self.attributes(node).get("perm", range(source.values.ndim)[::-1]))
            axis = order.index(source.axis)
            self.stored[node.output[0]] = replace(source, values=source.values.transpose(order), axis=axis)

    # --- where values are ---

    def view(self, node: Any, position: int = 0) -> View:
        """The tensor that an input reads."""
        name = self.given(node, position)
        if name in self.constants:
            self.refuse(node, f"its input '{name}' is a constant")
        if name not in self.views:
            self.refuse(node, f"nothing makes its input '{name}'")
        return self.views[name]

    def axes(self, view: View) -> tuple[int, ...] | None:
        """The IR's axis of every ONNX axis; None where they do not correspond."""
        shape = self.builder.shape(view.tensor)
        run = running(view.order, shape)
        if canonical(view.dims) == shape and run == running(CHANNELS_FIRST, shape):
            return CHANNELS_FIRST[: len(view.dims)]
        if len(view.dims) > 3 or [shape[axis] for axis in run] != [d for d in view.dims if d > 1]:
            return None
        long, short = list(run), [axis for axis in view.order if shape[axis] == 1]
        return tuple(long.pop(0) if size > 1 else short.pop(0) for size in view.dims)

    def laid(self, view: View, shape: Shape, order: Triple) -> str:
        """A tensor of `shape` that holds a view's values such that they run along the axes in `order`."""
        own = self.builder.shape(view.tensor)
        if own == shape and running(view.order, own) == running(order, shape):
            return view.tensor
        key = (view.tensor, view.order, shape, order)
        if key not in self._laid:
            with self.builder.reading(LAYOUT):
                self._laid[key] = self._lay(view, own, shape, order)
        return self._laid[key]

    def _lay(self, view: View, own: Shape, shape: Shape, order: Triple) -> str:
        tensor = view.tensor
        run, wanted = running(view.order, own), running(order, shape)
        if run != tuple(sorted(run)):
            tensor = self._turned(tensor, view.order)
        straight = wanted == tuple(sorted(wanted))
        rows = shape if straight else triple(shape[axis] for axis in order)
        if self.builder.shape(tensor) != rows:
            output = self._fresh(tensor)
            self.builder.emit(output, "reshape", Reshape(rows), (tensor,), output)
            self.same_scale(output, tensor)
            tensor = output
        return tensor if straight else self._turned(tensor, triple(order.index(axis) for axis in range(3)))

    def _turned(self, tensor: str, axes: Triple) -> str:
        output = self._fresh(tensor)
        self.builder.transpose(output, tensor, output, axes)
        self.same_scale(self.builder.tensor(output), tensor)
        return self.builder.tensor(output)

    def _fresh(self, tensor: str) -> str:
        self._added += 1
        return self.builder.fresh(f"{tensor}/{self._added}")

    def plane(self, node: Any, position: int = 0) -> str:
        """An input as a map (H, W, C), a series (L, 1, C) or a vector (1, 1, n)."""
        view = self.view(node, position)
        shape = canonical(view.dims)
        if shape is None:
            self.refuse(node, f"an input of {len(view.dims) + 1} axes")
        return self.laid(view, shape, CHANNELS_FIRST)

    def placed(self, node: Any, position: int = 0) -> tuple[View, tuple[int, ...]]:
        """An input such that every ONNX axis is one of the IR's, and which."""
        view = self.view(node, position)
        axes = self.axes(view)
        if axes is None:
            view = replace(view, tensor=self.plane(node, position), order=CHANNELS_FIRST)
            axes = self.axes(view)
        assert axes is not None
        return view, axes

    def made(self, node: Any, dims: Sequence[int], order: Sequence[int] = CHANNELS_FIRST, output: str = "") -> str:
        """Notes that the IR's tensor of an output's name holds it; gives the tensor behind the name."""
        name = output or node.output[0]
        tensor = self.builder.tensor(name)
        rest = [axis for axis in CHANNELS_FIRST if axis not in order]
        self.views[name] = View(tensor, tuple(dims), triple((*order, *rest)))
        return tensor

    def made_plane(self, node: Any, rank: int, output: str = "") -> str:
        """As `made`, for a map, series or vector of `rank` axes without the batch."""
        height, width, channels = self.builder.shape(output or node.output[0])
        return self.made(node, (channels, height, width)[:rank], output=output)

    # --- scales ---

    def settle(self, tensor: str, quant: Quant) -> None:
        """Gives a tensor its scale, and those whose values it holds unchanged."""
        if self.builder.quant(tensor) is None:
            self.builder.quantise(tensor, quant)
            for source in self.moved.get(tensor, ()):
                self.settle(source, quant)

    def same_scale(self, output: str, *sources: str) -> None:
        """Values move unchanged from the sources to the output."""
        quants = [self.builder.quant(source) for source in sources]
        known = next((quant for quant in quants if quant is not None), None)
        self.moved[output] = sources
        if any(source in self.fixed for source in sources):
            self.fixed.add(output)
        if known is not None:
            self.settle(output, known)
            for source in sources:
                self.settle(source, known)


Handler = Callable[[Importer, Any], None]


def extent(node: Node, quants: Sequence[Quant], channels: int) -> tuple[float, float] | None:
    """Least and largest output of a function, sum or product of integers; None for other operations."""
    steps = np.arange(QMIN, QMAX + 1)
    reals = [(steps - quant.zero) * quant.scale for quant in quants]
    if node.op in ("activation", "prelu"):
        import torch

        x = torch.from_numpy(reals[0]).view(1, 1, -1, 1).expand(1, channels, -1, 1)
        values = OPS[node.op].real(node.attrs, (x,), {}).numpy()
    elif node.op in ("add", "mul"):
        ends = [(real[0], real[-1]) for real in reals]
        values = np.array([a + b if node.op == "add" else a * b for a in ends[0] for b in ends[1]])
        low, high = getattr(node.attrs, "activation", None) or (-math.inf, math.inf)
        values = np.clip(values, low, high)
    else:
        return None
    return float(values.min()), float(values.max())


def _live(nodes: Sequence[Any], output: str) -> list[Any]:
    """The nodes that an output depends on."""
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(name for name in node.input if name)
            found.append(node)
    return found[::-1]


def _inferred_sizes(model: Any) -> dict[str, tuple[int, ...]]:
    """Sizes of tensors without the batch, where ONNX knows them."""
    try:
        found = onnx.shape_inference.infer_shapes(model).graph.value_info
    except Exception:  # noqa: BLE001  # it raises what it likes; the list of obstacles is then shorter
        return {}
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in found}
    return {name: tuple(dims[1:]) for name, dims in sizes.items() if len(dims) > 1 and min(dims[1:]) > 0}


def reshaped(dims: tuple[int, ...], target: Sequence[int], *, copies: bool) -> tuple[int, ...] | None:
    """Sizes behind a Reshape, without the batch; None where it is no reshape of one sample."""
    before = (1, *dims)
    sizes = [before[k] if size == 0 and copies and k < len(before) else size for k, size in enumerate(target)]
    size, rest = math.prod(dims), math.prod(d for d in sizes if d != -1)
    if sizes.count(-1) == 1 and rest > 0 and size % rest == 0:
        sizes[sizes.index(-1)] = size // rest
    sound = len(sizes) > 0 and min(sizes) > 0 and math.prod(sizes) == size and sizes[0] == 1
    return tuple(sizes[1:]) if sound else None


def _folded_size(op: str, arrays: list[NDArray[Any]]) -> int:
    """How many values a folded node makes, at most."""
    if op in SPREADING:
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    if op == "ConstantOfShape":
        return math.prod(map(int, arrays[0].reshape(-1)))
    if op == "Expand":
        return math.prod(np.broadcast_shapes(arrays[0].shape, tuple(map(int, arrays[1].reshape(-1)))))
    if op == "Range":
        start, limit, delta = (float(array) for array in arrays)
        return math.ceil(abs((limit - start) / delta)) if delta else 0
    if op == "Gather":
        return arrays[0].size * max(1, arrays[1].size)
    return sum(array.size for array in arrays)
