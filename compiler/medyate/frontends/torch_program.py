# SPDX-License-Identifier: Apache-2.0
"""A PyTorch program while it is imported: its constants, and where its tensors lie in the IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate import files
from medyate.errors import ModelError
from medyate.frontends.builder import GraphBuilder, chosen
from medyate.frontends.layout import Image, Layouts, Places, View, read_as
from medyate.ir import Imported, Shape
from medyate.ops._spatial import Pads

Array = NDArray[np.float32]
Node = torch.fx.Node
Arguments = Mapping[str, Any]
CONSTANT_MAX = 1 << 25
"""Elements of all constants that are worked out."""
REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights and activations."""
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
REAL_NAMES = ", ".join(str(dtype).removeprefix("torch.") for dtype in REAL)
RANK = {1: 3, 2: 4}
"""Axes of the tensors that windows of one and two dimensions run over."""
CHANNELS_FIRST: Mapping[int, Places] = {
    1: (None, None, 0),
    2: (None, None, 1),
    3: (2, None, 1),
    4: (2, 3, 1),
}
PERMUTATIONS = ("aten.permute.default", "aten.transpose.int")


class Importer:
    """One pass over a program's nodes."""

    def __init__(
        self, program: torch.export.ExportedProgram, name: str, supported: tuple[str, ...], output: str = ""
    ) -> None:
        signature = program.graph_signature
        inputs, outputs = signature.user_inputs, signature.user_outputs
        ends = [end for end in outputs if isinstance(end, str)]
        if len(inputs) != 1 or not ends:
            raise ModelError(
                f"'{name}' has {len(inputs)} inputs and {len(ends)} outputs that are tensors.",
                "Export a network that takes one tensor.",
            )
        self.graph = program.graph
        self.output = chosen(name, ends, output)
        self.targets: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        arrays = {**program.constants, **program.state_dict}
        self.constants = {
            placeholder: arrays[target].detach().to("cpu") for placeholder, target in self.targets.items()
        }
        source = next(node for node in self.graph.nodes if node.name == inputs[0])
        shape, places = _input(name, source)
        self.builder = GraphBuilder(name, source.name, shape, supported)
        self.builder.outputs = tuple(ends)
        self.layouts = Layouts(self.builder)
        self.views = {source.name: read_as(source.name, shape, places, len(traced_shape(source)))}
        self.expanded: set[str] = set()
        self.folded = 0
        self.padded: dict[str, tuple[str, Pads]] = {}
        """Zeros around a map: (the map, how many), for the convolution that reads them."""

    def refuse(self, node: Node, why: str) -> ModelError:
        """The error for a node that cannot be imported."""
        return self.builder.refuse(node.name, operation(node), why)

    # --- constants ---

    def is_constant(self, value: Any) -> bool:
        """Whether it is a number, or an array that the file holds."""
        return not isinstance(value, Node) or value.name in self.constants

    def numbers(self, node: Node, value: Any) -> NDArray[np.float64]:
        """A number or a constant as an array."""
        if isinstance(value, Node):
            whole = value.name in self.constants and self.constants[value.name].dtype in WHOLE
            array: NDArray[Any] = self.constants[value.name].numpy() if whole else self.constant(node, value)
            return array.astype(np.float64)
        if not isinstance(value, (int, float)):
            raise self.refuse(node, f"'{value}' is no number")
        return np.array(float(value))

    def constant(self, node: Node, value: Any) -> Array:
        """The array of a parameter or buffer."""
        if not isinstance(value, Node) or value.name not in self.constants:
            raise self.refuse(node, f"'{value}' is not a constant")
        tensor = self.constants[value.name]
        if tensor.dtype not in REAL:
            raise self.refuse(node, f"'{value}' holds {type_name(tensor)}; {REAL_NAMES} are supported")
        array: Array = tensor.to(torch.float32).numpy()
        return array

    def optional(self, node: Node, value: Any) -> Array | None:
        """The array of a parameter that may be left out."""
        return None if value is None else self.constant(node, value)

    def layer(self, node: Node, weight: Any) -> str:
        """A weighted node is called like the module that owns its weight."""
        owner = self.targets.get(getattr(weight, "name", ""), "").rpartition(".")[0]
        return owner or node.name

    def is_foldable(self, node: Node) -> bool:
        """Whether it makes a tensor from constants and sizes only."""
        sizes = (int, torch.SymInt)
        return is_tensor(node) and all(
            operand.name in self.constants or isinstance(operand.meta.get("val"), sizes)
            for operand in node.all_input_nodes
        )

    def fold(self, node: Node) -> None:
        """Works out a node that reads constants and sizes only."""

        def run(device: str) -> Any:
            def given(operand: Node) -> Any:
                if operand.name in self.constants:
                    return self.constants[operand.name].to(device, copy=True)
                return one_sample(operand.meta["val"])

            target: Any = node.target
            kwargs = {**node.kwargs, "device": device} if "device" in node.kwargs else node.kwargs
            with torch.device(device):
                return target(*torch.fx.map_arg(node.args, given), **torch.fx.map_arg(kwargs, given))

        try:
            promised = run("meta")
            if not isinstance(promised, torch.Tensor):
                raise self.refuse(node, "its result is no tensor")
            self.folded += promised.numel()
            if self.folded > CONSTANT_MAX:
                raise self.refuse(node, f"constants of more than {CONSTANT_MAX:,} numbers would have to be computed")
            result = run("cpu")
        except files.DAMAGE as error:
            raise self.refuse(node, f"its constants cannot be computed ({files.reason(error)})") from error
        self.constants[node.name] = result.detach()
        operands = node.all_input_nodes
        self.targets[node.name] = self.targets.get(operands[0].name, "") if operands else ""

    # --- tensors ---

    def view(self, node: Node, value: Any) -> View:
        """How a tensor lies in the IR."""
        if not isinstance(value, Node) or value.name not in self.views:
            raise self.refuse(node, f"'{value}' is not a tensor that the network computes")
        if value.name in self.expanded:
            raise self.refuse(node, f"'{value}' repeats its values")
        return self.views[value.name]

    def put(self, node: Node, view: View) -> None:
        """Notes a node's result."""
        if view.shape != traced_shape(node):
            raise self.refuse(node, f"it makes {view.shape}, but was traced with {traced_shape(node)}")
        self.views[node.name] = view

    def put_first(self, node: Node, view: View) -> None:
        """Notes a node's only result, or the first of several."""
        if is_tensor(node):
            self.put(node, view)
        else:
            self.views[f"{node.name}/0"] = view

    def stand_in(self, node: Node) -> None:
        """A tensor in the place of one that a node does not make."""
        if not is_tensor(node):
            for k, value in enumerate(node.meta["val"] if isinstance(node.meta.get("val"), (list, tuple)) else ()):
                if isinstance(value, torch.Tensor):
                    self._stand_in(f"{node.name}/{k}", tuple(one_sample(size) for size in value.shape))
            return
        self._stand_in(node.name, traced_shape(node))

    def _stand_in(self, name: str, sizes: tuple[int, ...]) -> None:
        places = CHANNELS_FIRST.get(len(sizes))
        if places is None or name in self.views or sizes[0] != 1:
            return
        height, width, channels = (1 if axis is None else sizes[axis] for axis in places)
        self.builder.stand_in(name, (height, width, channels))
        self.views[name] = read_as(name, (height, width, channels), places, len(sizes))

    def image(self, node: Node, value: Any, places: Places | None = None) -> Image:
        """A tensor with its axes as (height, width, channels): as it lies, or under `places`."""
        view = value if isinstance(value, View) else self.view(node, value)
        chosen = places if places is not None else self.layouts.natural(view)
        image = None if chosen is None else self.layouts.image(node.name, view, chosen)
        if image is None:
            raise self.refuse(node, f"a tensor of {view.shape}, in this order of its axes")
        return image

    def window(self, node: Node, value: Any, dimensions: int) -> Image:
        """The map (1, C, H, W) or series (1, C, L) that a window runs over."""
        view = self.view(node, value)
        if len(view.axes) != RANK[dimensions] or view.axes[0]:
            raise self.refuse(node, f"a tensor of {view.shape} is no map (1, C, H, W) or series (1, C, L)")
        return self.image(node, view, self.layouts.upright(view, 2, 3 if dimensions == 2 else None, 1))

    def channels(self, node: Node, value: Any, axis: int) -> Image:
        """A tensor with `axis` as its channels."""
        view = value if isinstance(value, View) else self.view(node, value)
        others = [k for k in range(len(view.axes)) if k != axis and (k > 0 or view.axes[0])]
        if len(others) > 2:
            others = [k for k in others if view.axes[k]]
        height, width = (*others, None, None)[:2]
        return self.image(node, view, (*self.layouts.upright(view, height, width, axis)[:2], axis))

    def with_channels(self, node: Node, view: View, axis: int) -> View:
        """The same values with `axis` as the channels, wherever the other axes lie."""
        if self.layouts.held(view, axis):
            return view
        image = self.channels(node, view, axis)
        return image.view(image.tensor, self.builder.shape(image.tensor))

    def made(self, node: Node, image: Image, output: str | None = None) -> View:
        """A new tensor of the IR, read as `image` is."""
        output = output or node.name
        return image.view(output, self.builder.shape(output))

    def finish(self) -> Imported:
        """The network that ends in the program's output, its channels in front as those of the input."""
        if self.output not in self.views or self.output in self.expanded:
            raise ModelError(f"the output '{self.output}' is no tensor.", "Export the module in inference mode.")
        view = self.views[self.output]
        places = CHANNELS_FIRST.get(len(view.axes))
        image = None if places is None else self.layouts.image(f"{self.output}/output", view, places)
        if image is None:
            raise self.builder.refuse(self.output, "output", f"a tensor of {view.shape}, in this order of its axes")
        return self.builder.finish(image.tensor)


Handler = Callable[[Importer, Node, Arguments], None]


def operation(node: Node) -> str:
    """The name under which an operation has its row."""
    target = node.target
    return str(target) if hasattr(target, "_schema") else getattr(target, "__name__", str(target))


def arguments(node: Node) -> Arguments:
    """Every argument by the name that it has in the operation's schema, defaults included."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(position): value for position, value in enumerate(node.args)}
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    given.update(node.kwargs)
    return {a.name: given.get(a.name, a.default_value) for a in schema.arguments}


def is_tensor(node: Node) -> bool:
    """Whether it makes one tensor, and not several or a number."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def traced_shape(node: Node) -> tuple[int, ...]:
    """Sizes as traced, for one sample."""
    return tuple(one_sample(size) for size in node.meta["val"].shape)


def type_name(tensor: torch.Tensor) -> str:
    """Its type without the package."""
    return str(tensor.dtype).removeprefix("torch.")


def one_sample(size: Any) -> int:
    """A size with 1 for every symbol: only the batch may be one."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def whole_number(value: Any) -> int:
    """A whole number, or the traced value of a size."""
    return one_sample(value.meta["val"] if isinstance(value, Node) else value)


def _input(name: str, node: Node) -> tuple[Shape, Places]:
    """(shape in the IR, axes of the input that are its height, width and channels).

    Channels come first, unless the program begins by putting them there.
    """
    dims = list(getattr(node.meta.get("val"), "shape", ()))
    fixed = all(isinstance(d, int) and d > 0 for d in dims[1:])
    if not 2 <= len(dims) <= 4 or not fixed or (isinstance(dims[0], int) and dims[0] != 1):
        raise ModelError(
            f"'{name}' takes an input of {dims}; "
            "one image (1, C, H, W), series (1, C, L) or vector (1, n) is expected.",
            "Export it with a batch of 1 (or symbolic) and fixed height and width.",
        )
    if node.meta["val"].dtype not in REAL:
        raise ModelError(
            f"'{name}' takes an input of {type_name(node.meta['val'])}; {REAL_NAMES} are supported.",
            "Export the part of the network behind its embedding or conversion.",
        )
    places = CHANNELS_FIRST[len(dims)]
    if len(node.users) == 1 and operation(first := next(iter(node.users))) in PERMUTATIONS and len(dims) > 2:
        order = axis_order(arguments(first), len(dims))
        if order == (0, len(dims) - 1, *range(1, len(dims) - 1)):
            places = (1, 2 if len(dims) == 4 else None, len(dims) - 1)
    height, width, channels = (1 if axis is None else int(dims[axis]) for axis in places)
    return (height, width, channels), places


def program_input(program: torch.export.ExportedProgram, sample: NDArray[Any]) -> torch.Tensor:
    """A sample (height, width, channels) of the graph as the program takes it, with a batch of 1."""
    name = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.name == name)
    _, places = _input(str(name), node)
    values = np.asarray(sample, np.float32)
    if len(traced_shape(node)) > 2:
        values = values.transpose(sorted(range(3), key=lambda k: places[k] or 0))
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(1, *traced_shape(node)[1:]).to(node.meta["val"].dtype)


def per_dimension(value: Any, count: int) -> tuple[int, ...]:
    """As many whole numbers as there are dimensions; one stands for all."""
    values = value if isinstance(value, (list, tuple)) else [value]
    numbers = [int(v) for v in values]
    return tuple(numbers * count if len(numbers) == 1 else numbers)


def axis_of(dim: int, rank: int) -> int:
    """An axis counted from the front."""
    return int(dim) % max(rank, 1)


def axes_of(dims: Any, rank: int) -> tuple[int, ...]:
    """One or more axes counted from the front."""
    values = dims if isinstance(dims, (list, tuple)) else [dims]
    return tuple(axis_of(dim, rank) for dim in values)


def axis_order(a: Arguments, rank: int) -> tuple[int, ...]:
    """The permutation of permute, transpose and t."""
    if "dims" in a:
        return axes_of(a["dims"], rank)
    order = list(range(rank))
    first, second = axis_of(a.get("dim0", 0), rank), axis_of(a.get("dim1", -1), rank)
    order[first], order[second] = order[second], order[first]
    return tuple(order)


def paddings(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros (before, behind) of every dimension; an even window is padded like PyTorch does."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(pad, pad) for pad in per_dimension(padding, len(kernel))]


def around(image: Image, pads: Sequence[tuple[int, int]]) -> Pads:
    """(top, left, bottom, right) of the IR's tensor."""
    top, left = image.pair(lambda axis: pads[axis - 2][0], 0)
    bottom, right = image.pair(lambda axis: pads[axis - 2][1], 0)
    return top, left, bottom, right
