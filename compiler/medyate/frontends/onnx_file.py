# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX file that nobody vouches for: sizes before values, and no file outside its folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from medyate import files
from medyate.errors import MedyateError, ModelError
from medyate.files import FILE_MAX

KINDS = ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "BOOL")
AGAIN = "Export it again."


def read(path: Path) -> Any:
    """The checked model with all its values. Raises ModelError."""
    data = files.read_bytes(path, ModelError, FILE_MAX)
    try:
        model = onnx.load_model_from_string(data)
        _read_tensors(path, model)
        onnx.checker.check_model(model)
    except MedyateError:
        raise
    except Exception as error:  # protobuf and checker raise many unrelated types
        raise ModelError(f"'{path}' is not a sound ONNX file ({files.reason(error)}).", AGAIN) from error
    return model


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def _read_tensors(path: Path, model: Any) -> None:
    """Checks every constant's size and fetches what lies in other files."""
    if len(model.graph.sparse_initializer) > 0:
        raise ModelError(f"'{path}' holds sparse initialisers.", "Export it with dense ones.")
    total = 0
    for tensor in _tensors(model):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        name = tensor.name or "a constant"
        if kind not in KINDS:
            raise ModelError(f"'{name}' holds values of {kind}.", f"Known: {', '.join(KINDS)}.")
        size = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        dims = [int(d) for d in tensor.dims]
        total += math.prod(dims) * size
        if min(dims, default=0) < 0 or total > FILE_MAX:
            raise ModelError(f"'{name}' of {dims} is larger than a file of {FILE_MAX:,} B holds.", AGAIN)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = _external(path, name, tensor, math.prod(dims) * size)
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT


def _external(path: Path, name: str, tensor: Any, size: int) -> bytes:
    """A constant's bytes from a file in the model's folder or below it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    target = (folder / location).resolve()
    outside = Path(location).is_absolute() or ".." in Path(location).parts or "\\" in location
    if not location or outside or not target.is_relative_to(folder):
        raise ModelError(
            f"'{name}' lies in '{location}', outside the model's folder.", "Put its file beside the model."
        )
    if not target.is_file():
        raise ModelError(f"'{name}' lies in '{location}', which does not exist.", "Put the file beside the model.")
    offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    if offset < 0 or length != size or offset + size > target.stat().st_size:
        raise ModelError(f"'{name}' of {size} B does not lie in '{location}' as the model says.", AGAIN)
    with target.open("rb") as file:
        file.seek(offset)
        content: bytes = file.read(size)
    return content
