# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on the CPU, with exact sums: its fast integer kernels saturate on some processors (onnx_defined.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medyate.errors import MedyateError, ModelError
from medyate.frontends.onnx import load_with_ends
from medyate.frontends.onnx_file import read
from medyate.oracle import Given
from medyate.oracle.onnx_defined import as_defined, has_real_bias

EXACT_SUMS = ("session.x64quantprecision", "1")
"""Of what onnxruntime fuses; without it a right device was 6 steps off on a processor without VNNI."""
REAL = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def run(path: Path, given: Given) -> NDArray[Any]:
    """Outputs (n, k) in the type that the file declares; uint8 comes back 128 lower, as int8."""
    imported, file = load_with_ends(path, given.output)
    if imported.qgraph is None and imported.input_range is not None:  # whole numbers as they are, not the device's
        low = imported.input_range[0]
        given = replace(given, stored=(np.rint(given.real) - low - 128).astype(np.int8))
    try:
        session = defined_session(read(path))
        source = session.get_inputs()[0]
        samples = file.input_values(as_declared(given, source.type))
        outputs = [session.run([file.output], {source.name: sample})[0] for sample in samples]
    except MedyateError:
        raise
    except Exception as error:  # its exceptions share no base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"onnxruntime refuses '{path}' ({reason[:120]}).", "Export it again.") from error
    stacked = file.output_values(np.array(outputs))
    if stacked.dtype == np.uint8:
        return (stacked.astype(np.int16) - 128).astype(np.int8)
    return stacked


def defined_session(model: Any) -> Any:
    """A session whose integers are exact on any processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry(*EXACT_SUMS)
    if has_real_bias(model):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    defined = as_defined(model).SerializeToString()
    return onnxruntime.InferenceSession(defined, options, providers=["CPUExecutionProvider"])


def as_declared(given: Given, kind: str) -> NDArray[Any]:
    """The samples in the type of the file's input."""
    if kind in REAL:
        return given.real.astype(REAL[kind])
    return given.stored if kind == "tensor(int8)" else (given.stored.astype(np.int16) + 128).astype(np.uint8)
