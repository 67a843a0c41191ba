# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medyate.errors import MedyateError, ModelError

TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


def run(path: Path, samples: NDArray[Any]) -> NDArray[Any]:
    """Outputs (n, k) in the type that the file declares; uint8 comes back 128 lower, as int8."""
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        outputs = [session.run(None, {given.name: _as_input(sample, given)})[0] for sample in samples]
    except MedyateError:
        raise
    except Exception as error:  # its exceptions share no base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"onnxruntime refuses '{path}' ({reason[:120]}).", "Export it again.") from error
    stacked = np.array([np.asarray(value).reshape(-1) for value in outputs])
    if stacked.dtype == np.uint8:
        return (stacked.astype(np.int16) - 128).astype(np.int8)
    return stacked


def _as_input(sample: NDArray[Any], given: Any) -> NDArray[Any]:
    """(H, W, C) as the file has it: channels first, with a batch of one."""
    rank = len(given.shape)
    dtype = TYPES.get(given.type, np.float32)
    values = sample.astype(np.int16) + 128 if dtype == np.uint8 and sample.dtype == np.int8 else sample
    first = values.transpose(2, 0, 1)
    shaped = first if rank == 4 else first[:, :, 0] if rank == 3 else first.reshape(-1)
    return np.ascontiguousarray(shaped[None], dtype)
