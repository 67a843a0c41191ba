# SPDX-License-Identifier: Apache-2.0
"""PyTorch programs (torch.export) to the IR. One row of TABLE per kind of ATen operation.

Both forms are read: the graph as exported, with in-place operations, and the one that
ExportedProgram.run_decompositions leaves. What reads constants only is worked out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch

from medyate import files
from medyate.errors import MedyateError, ModelError, UnsupportedOpError
from medyate.frontends import torch_arithmetic as arithmetic
from medyate.frontends import torch_layers as layers
from medyate.frontends import torch_moves as moves
from medyate.frontends.pointwise import KINDS, POINTWISE, Recognised, recognise
from medyate.frontends.pt2_archive import check_archive
from medyate.frontends.table import Row, row
from medyate.frontends.torch_program import (
    REAL,
    REAL_NAMES,
    Arguments,
    Importer,
    Node,
    arguments,
    is_tensor,
    operation,
    program_input,
    type_name,
)
from medyate.ir import Imported


def _run(i: Importer) -> Imported:
    """Imports what the output depends on. Raises UnsupportedOpError with all nodes that cannot be read."""
    calls = [node for node in i.graph.nodes if node.op not in ("placeholder", "output")]
    _check_overwrites(i, calls)
    for node in calls:
        if operation(node) in HANDLERS and i.is_foldable(node):
            i.fold(node)
    functions = recognise(calls, i.constants)
    lost: set[Node] = set()  # what nothing stands in for
    for node in _live(i, calls, functions):
        try:
            _step(i, node, functions)
        except UnsupportedOpError as error:
            if not lost.intersection(node.all_input_nodes) or operation(node) not in HANDLERS:
                i.builder.obstacles.add(error)
            i.stand_in(node)
            if is_tensor(node) and node.name not in i.views:
                lost.add(node)
    i.builder.obstacles.check()
    return i.finish()


def _step(i: Importer, node: Node, functions: Mapping[Node, Recognised]) -> None:
    """One node. Raises UnsupportedOpError."""
    if operation(node) not in HANDLERS and node not in functions:
        raise i.refuse(node, "the operation is not supported")
    if is_tensor(node) and node.meta["val"].dtype not in REAL and "argmax" not in operation(node):
        raise i.refuse(node, f"it makes {type_name(node.meta['val'])}; {REAL_NAMES} are supported")
    try:
        if node in functions:
            RECOGNISED(i, node, functions[node])
        else:
            HANDLERS[operation(node)](i, node, arguments(node))
    except files.DAMAGE as error:  # a damaged file gives any operation any argument
        raise i.refuse(node, f"its arguments are not supported ({files.reason(error)})") from error


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
        known = HANDLERS.get(operation(node))
        views = known is not None and known.handler in VIEWS
        if not isinstance(source, Node) or not (overwrites or views):
            continue
        shared = names.setdefault(source, [source])
        readers = [user for name in shared for user in name.users] if overwrites else []
        if any(order[user] > order[node] for user in readers):
            raise i.refuse(node, f"it overwrites '{source}', which is read again later")
        shared.append(node)
        names[node] = shared


def _recognised(i: Importer, node: Node, found: Recognised) -> None:
    """The last of several operations that together are one function."""
    function = found.function
    arithmetic.apply(i, node, found.source, function.kind, function.low, function.high)


RECOGNISED: Row[Importer, [Node, Recognised]] = row(_recognised, *KINDS, "leaky_relu", "clip")
"""For operations that end the spelling of a function, rows or none."""
TABLE: tuple[tuple[Row[Importer, [Node, Arguments]], str], ...] = (
    (
        row(layers.convolution, "conv2d", "depthwise"),
        "aten.conv1d aten.conv1d.padding aten.conv2d aten.conv2d.padding",
    ),
    (
        row(layers.convolution, "conv2d", "depthwise", "concat", "move"),
        "aten.convolution",
    ),
    (row(layers.linear, "conv2d"), "aten.linear"),
    (row(layers.addmm, "conv2d"), "aten.addmm"),
    (row(layers.matmul, "conv2d"), "aten.mm aten.bmm aten.matmul"),
    (row(layers.batch_norm, "batch_norm"), "aten.batch_norm aten._native_batch_norm_legit_no_training"),
    (row(moves.result, gone="name"), "getitem"),
    (row(arithmetic.relu, "clip"), "aten.relu(_) aten.relu6(_)"),
    (row(arithmetic.clamp, "clip"), "aten.hardtanh(_) aten.clamp(_) aten.clamp_min(_) aten.clamp_max(_)"),
    (row(arithmetic.bound, "clip", "concat", "max_pool", "neg"), "aten.maximum aten.minimum"),
    (row(arithmetic.leaky, "leaky_relu"), "aten.leaky_relu(_)"),
    (row(arithmetic.prelu, "leaky_relu", "prelu"), "aten.prelu"),
    (row(arithmetic.function("hard_swish"), "hard_swish"), "aten.hardswish(_)"),
    (row(arithmetic.function("hard_sigmoid"), "hard_sigmoid"), "aten.hardsigmoid(_)"),
    (row(arithmetic.function("sigmoid"), "sigmoid"), "aten.sigmoid(_)"),
    (row(arithmetic.function("tanh"), "tanh"), "aten.tanh(_)"),
    (row(arithmetic.function("silu"), "silu"), "aten.silu(_)"),
    (row(arithmetic.gelu, "gelu", "gelu_tanh"), "aten.gelu(_)"),
    (row(arithmetic.elu, "elu", "selu"), "aten.elu(_)"),
    (row(arithmetic.function("selu"), "selu"), "aten.selu(_)"),
    (row(arithmetic.function("mish"), "mish"), "aten.mish(_)"),
    (row(arithmetic.function("softplus", beta=1, threshold=20), "softplus"), "aten.softplus"),
    (row(arithmetic.function("abs"), "abs"), "aten.abs(_)"),
    (row(arithmetic.function("exp"), "exp"), "aten.exp(_)"),
    (row(arithmetic.square, "square"), "aten.square(_) aten.pow.Tensor_Scalar"),
    (row(arithmetic.add, "add", "batch_norm"), "aten.add(_).Tensor aten.sub(_).Tensor aten.rsub.Tensor"),
    (row(arithmetic.add, "batch_norm"), "aten.add(_).Scalar aten.sub(_).Scalar aten.rsub.Scalar"),
    (row(arithmetic.mul, "mul", "batch_norm"), "aten.mul(_).Tensor"),
    (row(arithmetic.mul, "batch_norm"), "aten.mul(_).Scalar"),
    (row(arithmetic.div, "batch_norm"), "aten.div(_).Tensor aten.div(_).Scalar"),
    (row(arithmetic.neg, "batch_norm"), "aten.neg(_)"),
    (row(layers.pool, "average_pool", "move"), "aten.avg_pool1d aten.avg_pool2d"),
    (row(layers.pool, "max_pool"), "aten.max_pool1d aten.max_pool2d aten.max_pool2d_with_indices"),
    (
        row(layers.adaptive_pool, "average_pool"),
        "aten.adaptive_avg_pool1d aten.adaptive_avg_pool2d aten._adaptive_avg_pool2d",
    ),
    (row(layers.adaptive_pool, "max_pool"), "aten.adaptive_max_pool1d aten.adaptive_max_pool2d"),
    (row(layers.mean, "average_pool"), "aten.mean aten.mean.dim"),
    (row(layers.mean, "max_pool"), "aten.amax aten.max.dim"),
    (
        row(moves.reshape, gone="reading"),
        "aten.flatten.using_ints aten.unflatten.int aten.view aten._unsafe_view aten.reshape "
        "aten.squeeze aten.squeeze.dim aten.squeeze.dims aten.unsqueeze",
    ),
    (row(moves.permute, gone="reading"), "aten.permute aten.transpose.int aten.t"),
    (row(moves.shuffle, gone="reading"), "aten.channel_shuffle"),
    (row(moves.expand, gone="reading"), "aten.expand aten.expand_as"),
    (row(moves.concat, "concat"), "aten.cat aten.concat aten.stack"),
    (row(moves.part_of, "move"), "aten.slice.Tensor"),
    (row(moves.select, "move"), "aten.select.int"),
    (row(moves.split, "move"), "aten.chunk aten.split.Tensor aten.split_with_sizes"),
    (row(moves.pad, "move"), "aten.pad aten.constant_pad_nd"),
    (
        row(moves.enlarge, "move"),
        "aten.upsample_nearest1d.vec aten.upsample_nearest1d aten.upsample_nearest2d.vec aten.upsample_nearest2d "
        "aten._upsample_nearest_exact1d.vec aten._upsample_nearest_exact2d.vec",
    ),
    (row(moves.repeat, "move"), "aten.index.Tensor"),
    (row(layers.softmax, "softmax"), "aten.softmax.int aten._softmax"),
    (row(layers.last("log_softmax"), gone="end"), "aten.log_softmax.int aten._log_softmax"),
    (row(layers.last("argmax"), gone="end"), "aten.argmax"),
    (
        row(layers.transposed, "conv2d", "concat", "move"),
        "aten.conv_transpose1d aten.conv_transpose2d.input",
    ),
    (row(layers.total, "average_pool", "batch_norm"), "aten.sum.dim_IntList"),
    (row(moves.blocks, "move", "concat"), "aten.pixel_shuffle aten.pixel_unshuffle"),
    (row(moves.dropout, gone="name"), "aten.dropout(_) aten.feature_dropout"),
    (row(moves.same, gone="name"), "aten.contiguous aten.clone aten.alias aten.detach(_) aten.lift_fresh_copy"),
    (row(moves.cast, gone="name"), "aten.to.dtype aten._to_copy aten.type_as"),
    (
        row(moves.nothing, gone="size"),
        "aten.sym_size.int aten._assert_tensor_metadata aten._assert_scalar mul floordiv",
    ),
    (
        row(moves.constant, gone="constant"),
        "aten.full aten.ones aten.zeros aten.scalar_tensor aten.arange aten.arange.start aten.arange.start_step "
        "aten.sqrt aten.rsqrt aten.reciprocal",
    ),
)
"""What is read, by short names: the overload is 'default' where none is given, '(_)' is the in-place variant too."""


def _names(short: str) -> tuple[str, ...]:
    """The names of the program that a short one stands for."""
    full = f"{short}.default" if short.startswith("aten.") and short.count(".") == 1 else short
    return tuple(dict.fromkeys(full.replace("(_)", mark) for mark in ("", "_")))


HANDLERS: Mapping[str, Row[Importer, [Node, Arguments]]] = {
    name: known for known, shorts in TABLE for short in shorts.split() for name in _names(short)
}
__all__ = ["HANDLERS", "from_module", "load", "program_input", "read"]
SUPPORTED = tuple(name for name in HANDLERS if "_." not in name and "._" not in name)
"""What a refusal lists: without in-place and internal variants."""
VIEWS = frozenset(
    (
        *(moves.same, moves.cast, moves.dropout, moves.reshape, moves.permute, moves.expand),
        *(moves.part_of, moves.select, moves.split, moves.result),
    )
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
            f"'{name}' cannot be exported ({files.reason(error)}).",
            "Keep decisions on tensor values out of forward, and pass one sample with a batch of 1.",
        ) from error
    return _run(Importer(program, name, SUPPORTED))


def load(path: Path, output: str = "") -> Imported:
    """Imports a file of torch.export.save. Raises ModelError, or UnsupportedOpError naming the node."""
    program = read(path)
    with files.boundary(ModelError, f"'{path}' lacks what its graph reads", SAVE_AGAIN):
        importer = Importer(program, path.stem, SUPPORTED, output)
    return _run(importer)


SAVE_AGAIN = "Save it again with torch.export.save."


def check_operations(path: Path, program: torch.export.ExportedProgram) -> None:
    """Raises ModelError unless the program may be run: an operation that nothing reads would run as well."""
    for node in program.graph.nodes:
        name = operation(node)
        known = name in HANDLERS or name in POINTWISE if node.op == "call_function" else node.op in ENDS
        if not known:
            raise ModelError(f"'{path}' holds '{node.name}' ({name}), which is not run here.", SAVE_AGAIN)


ENDS = ("placeholder", "output")


def read(path: Path) -> torch.export.ExportedProgram:
    """Reads a file of torch.export.save. Raises ModelError.

    A file that carries pickled objects or compiled code is refused before anything is unpickled.
    """
    files.check_regular(path, ModelError)
    try:
        check_archive(path)
        return torch.export.load(path)
    except MedyateError:
        raise
    except Exception as error:  # torch's schema, unpickling and look-up errors share no base
        raise ModelError(f"'{path}' is not a sound .pt2 file ({files.reason(error)}).", SAVE_AGAIN) from error
