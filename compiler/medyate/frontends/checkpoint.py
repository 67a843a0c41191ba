# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints (torch.save): int8 MobileNets of tiny-training to the IR; weights alone are refused.

Such a network is a dict of blocks that hold int8 weights, int32 biases and scales as numpy arrays.
The file is unpickled by torch's restricted loader, which makes tensors and containers and runs no code.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from medyate import files
from medyate.arithmetic.scheme import QMAX, QMIN, WEIGHT_MAX
from medyate.errors import GraphError, ModelError
from medyate.files import FILE_MAX
from medyate.frontends.builder import GraphBuilder
from medyate.ir import Activation, Imported, Quant
from medyate.ops._spatial import KERNEL_MAX

EXTENT_MAX = 4096
INPUT = Quant(float(np.float32(1 / 127.5)), 0)
"""Pixels 0 .. 255 as pixel / 127.5 - 1."""
RELU6 = 6.0
KEYS = ("first_conv", "blocks", "feature_mix", "classifier")
BLOCK = ("pointwise1", "depthwise", "pointwise2", "residual")
SUPPORTED = ("first_conv", *BLOCK, "feature_mix", "classifier")
KINDS = {code: np.dtype(code) for code in ("b1", "i1", "u1", "i2", "i4", "i8", "f4", "f8")}
SAVE_AGAIN = "Save the checkpoint again, or export the network to ONNX, TFLite or .pt2."
ARRAYS_ALONE = "Save the weights alone (a state dict), or export the network to ONNX, TFLite or .pt2."
TO_PT2 = (
    "Load it into its module and save that: torch.export.save(torch.export.export(module.eval(), (sample,)), path). "
    "The project's models/checkpoints/to_pt2.py does it for CIFAR ResNets and MobileNets."
)


@dataclass(frozen=True)
class _Layer:
    """A convolution of the file, checked."""

    weight: NDArray[np.int8]
    """(out, in / groups, kernel_h, kernel_w)."""
    bias: NDArray[np.int64]
    scales: NDArray[np.float64]
    stride: int
    groups: int
    source: Quant
    output: Quant
    extent: int | None
    """Height and width of the output, if the file says so."""


def load(path: Path, output: str = "") -> Imported:
    """Reads a checkpoint, recognised by its content. Raises ModelError for one that holds no network."""
    if output:
        raise ModelError(f"'{path}' has one output, without a name.", "Leave --output out.")
    content = read(path)
    if isinstance(content, Mapping) and "first_conv" in content:
        try:
            return _Importer(path, content).run()
        except GraphError as error:
            raise ModelError(f"'{path}': {error.what}", error.remedy) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if isinstance(state, Mapping) and state and any(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"'{path}' holds weights (a state dict), but no graph of the operations between them.", TO_PT2)
    raise ModelError(f"'{path}' holds neither weights nor a network ({', '.join(KEYS)}).", SAVE_AGAIN)


def read(path: Path) -> Any:
    """The content of a file of torch.save: containers, numbers, strings, tensors and stand-ins for arrays.

    Raises ModelError for a file that is damaged or names anything else; nothing that it names is called.
    """
    content = files.read_bytes(path, ModelError, FILE_MAX)
    with files.boundary(ModelError, f"'{path}' is not a sound checkpoint", ARRAYS_ALONE):
        if zipfile.is_zipfile(io.BytesIO(content)):
            files.check_archive(path, FILE_MAX)  # torch unpacks it all at once
    try:
        with torch.serialization.safe_globals(STAND_INS):
            # From memory: a file would hand out a buffer as long as a damaged pickle asks for.
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, pickle's and numpy's errors share no base
        raise _unsound(path, error) from error


def _unsound(path: Path, error: Exception) -> ModelError:
    why = files.reason(error)
    if isinstance(error, pickle.UnpicklingError):  # torch's text is about switching the check off
        named = re.search(r"GLOBAL (\S+)", str(error))
        why = "its pickle is damaged" if named is None else f"it names '{named[1][:80]}'"
    return ModelError(f"'{path}' is not a sound checkpoint of arrays and tensors alone ({why}).", ARRAYS_ALONE)


class _Kind:
    """Stands for numpy.dtype in a pickle: numpy's own lets a file change the types of the running program."""

    def __init__(self, code: str, *_: Any) -> None:
        self.kind = KINDS[code]

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            self.kind = self.kind.newbyteorder(">")


class _Array:
    """Stands for numpy.ndarray in a pickle."""

    def __init__(self) -> None:
        self.values: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, stand_in, is_fortran, raw = state
        values = np.frombuffer(raw, stand_in.kind).reshape(shape, order="F" if is_fortran else "C")
        self.values = values.astype(values.dtype.newbyteorder("="))


def _reconstruct(*_: Any) -> _Array:
    """Stands for numpy's function of this name: an array that its state fills."""
    return _Array()


STAND_INS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_Array, "numpy.ndarray"),
    (_Kind, "numpy.dtype"),
]
"""What a pickled array names, and what is made instead."""


class _Importer:
    """One pass over the blocks."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.content = content
        missing = [key for key in ("blocks", "classifier") if key not in content]
        if missing or not isinstance(content["blocks"], (list, tuple)):
            self.refuse(f"it lacks {missing or 'a list of blocks'}")
        first = self.record("first_conv", content["first_conv"])
        extent, channels = self.whole("first_conv", first, "in_shape"), self.whole("first_conv", first, "in_channel")
        self.builder = GraphBuilder(path.stem, "input", (extent, extent, channels), SUPPORTED)
        self.builder.rounds_once = True  # as the simulation that defines these networks, see medyate.oracle
        self.builder.quantise("input", INPUT)
        self.tensor = "input"

    def refuse(self, why: str) -> NoReturn:
        """Raises the error for a file whose content does not fit together."""
        raise ModelError(f"'{self.path}': {why}.", SAVE_AGAIN)

    def run(self) -> Imported:
        """The network."""
        self.convolution("first_conv", self.content["first_conv"], relu6=True)
        for position, block in enumerate(self.content["blocks"]):
            self.block(f"blocks.{position}", block)
        if self.content.get("feature_mix") is not None:
            self.convolution("feature_mix", self.content["feature_mix"], relu6=True)
        quant = self.quant()
        self.builder.average_pool("pool", self.tensor, "pool", (0, 0), (0, 0))
        self.builder.quantise("pool", quant)
        self.tensor = "pool"
        self.convolution("classifier", self.content["classifier"], relu6=False)
        return self.builder.finish(self.tensor)

    def quant(self) -> Quant:
        """Scale and zero point of the last tensor."""
        quant = self.builder.quant(self.tensor)
        assert quant is not None
        return quant

    def block(self, name: str, value: Any) -> None:
        """Expand, depthwise, project, and the sum with the block's input; any of them may be left out."""
        block = self.record(name, value)
        if block.get("se") is not None:
            self.refuse(f"'{name}' has a squeeze-excite gate, whose form is not known")
        source, quant = self.tensor, self.quant()
        for part in BLOCK[:3]:
            if block.get(part) is not None:
                self.convolution(f"{name}.{part}", block[part], relu6=part != "pointwise2")
        if self.tensor == source:
            self.refuse(f"'{name}' has none of {', '.join(BLOCK[:3])}")
        if block.get("residual") is None:
            return
        where = f"{name}.residual"
        params = self.record(f"{where}.params", self.record(where, block["residual"]).get("params"))
        if self.scale(where, params, "x") != quant:
            self.refuse(f"'{where}' reads another scale than the block's input has")
        if self.builder.shape(self.tensor) != self.builder.shape(source):
            self.refuse(f"'{where}' adds {self.builder.shape(source)} to {self.builder.shape(self.tensor)}")
        self.builder.add(where, source, self.tensor, where)
        self.builder.quantise(where, self.scale(where, params, "y"))
        self.tensor = where

    def convolution(self, name: str, value: Any, *, relu6: bool) -> None:
        """A convolution over the last tensor, with zeros around it as its window needs."""
        layer = self.layer(name, value)
        if layer.source != self.quant():
            self.refuse(f"'{name}' reads {layer.source}, but is given {self.quant()}")
        _, per_group, kernel_h, kernel_w = layer.weight.shape
        bias = self.builder.bias(name, layer.bias, per_group * kernel_h * kernel_w)
        high, wide = (kernel_h - 1) // 2, (kernel_w - 1) // 2
        self.builder.convolution(
            name,
            self.tensor,
            name,
            layer.weight.transpose(0, 2, 3, 1),
            bias,
            (layer.stride, layer.stride),
            (high, wide, high, wide),
            groups=layer.groups,
            activation=self.activation(name, layer.output) if relu6 else None,
            arrays={"scale": layer.scales},
        )
        self.builder.quantise(name, layer.output)
        self.tensor = name
        height, width, _ = self.builder.shape(name)
        if layer.extent is not None and (height, width) != (layer.extent, layer.extent):
            self.refuse(f"'{name}' makes {height} x {width} pixels, but was saved with {layer.extent} x {layer.extent}")

    def activation(self, name: str, quant: Quant) -> Activation:
        """ReLU6, which the file expresses by the output's range alone: from 0 to 6, or to what was ever seen."""
        high = quant.scale * (QMAX - QMIN)
        if quant.zero != QMIN or high > RELU6 * (1 + 1e-5):
            self.refuse(f"'{name}' ends in {quant}, whose range is not that of ReLU6")
        return 0.0, RELU6

    def layer(self, name: str, value: Any) -> _Layer:
        """A convolution's record. Raises ModelError saying what is missing or wrong."""
        record = self.record(name, value)
        params = self.record(f"{name}.params", record.get("params"))
        if record.get("act") is not None:
            self.refuse(f"'{name}' has the activation '{record['act']}', whose form is not known")
        weight = self.array(name, params, "weight", np.int8, 4)
        bias, scales = self.array(name, params, "bias", np.int32, 1), self.array(name, params, "w_scales", None, 1)
        out, _, kernel_h, kernel_w = weight.shape
        if min(weight.shape) < 1 or max(kernel_h, kernel_w) > KERNEL_MAX or weight.min() < -WEIGHT_MAX:
            self.refuse(f"'{name}' has a weight of {weight.shape} from {weight.min(initial=0)}")
        if bias.shape != (out,) or scales.shape != (out,) or not (np.isfinite(scales) & (scales > 0)).all():
            self.refuse(
                f"'{name}' has biases of {bias.shape} and scales of {scales.shape} that do not serve {weight.shape}"
            )
        kernel = record.get("kernel_size")
        if not isinstance(kernel, Sequence) or tuple(kernel) != (kernel_h, kernel_w):
            self.refuse(f"'{name}' has a kernel_size of {kernel} and a weight of {weight.shape}")
        return _Layer(
            weight,
            bias.astype(np.int64),
            scales.astype(np.float32).astype(np.float64),
            self.whole(name, record, "stride"),
            self.whole(name, record, "groups"),
            self.scale(name, params, "x"),
            self.scale(name, params, "y"),
            self.whole(name, record, "out_shape") if "out_shape" in record else None,
        )

    def record(self, name: str, value: Any) -> Mapping[str, Any]:
        """A dict of the file."""
        if not isinstance(value, Mapping):
            self.refuse(f"'{name}' is missing or no record")
        return value

    def whole(self, name: str, record: Mapping[str, Any], key: str) -> int:
        """A positive whole number."""
        value = record.get(key)
        if type(value) is not int or not 1 <= value <= EXTENT_MAX:
            self.refuse(f"'{name}' has a {key} of {str(value)[:40]}")
        return value

    def scale(self, name: str, params: Mapping[str, Any], side: str) -> Quant:
        """The scale and zero point of the input (x) or the output (y)."""
        scale, zero = params.get(f"{side}_scale"), params.get(f"{side}_zero")
        if type(scale) is not float or type(zero) is not int:
            self.refuse(f"'{name}' lacks {side}_scale or {side}_zero")
        if not math.isfinite(scale) or not 1e-9 < scale < 1e9 or not QMIN <= zero <= QMAX:
            self.refuse(f"'{name}' has a {side}_scale of {scale} and a {side}_zero of {str(zero)[:40]}")
        return Quant(float(np.float32(scale)), zero)  # as model files and the device's header have it

    def array(self, name: str, params: Mapping[str, Any], key: str, kind: Any, rank: int) -> NDArray[Any]:
        """An array of a kind (None: real numbers) and rank."""
        found = params.get(key)
        value = found.values if isinstance(found, _Array) else np.zeros(())
        if value.ndim != rank:
            self.refuse(f"'{name}' lacks the array '{key}' of rank {rank}")
        if value.dtype.kind != "f" if kind is None else value.dtype != kind:
            self.refuse(f"'{name}' has a {key} of {value.dtype}")
        return value
