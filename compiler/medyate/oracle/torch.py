# SPDX-License-Identifier: Apache-2.0
"""The exported PyTorch program itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate.frontends.torch import read


def run(path: Path, samples: NDArray[Any]) -> NDArray[Any]:
    """Outputs (n, k), float32."""
    program = read(path)
    module = program.module()
    placeholder = next(n for n in program.graph.nodes if n.name == program.graph_signature.user_inputs[0])
    rank = len(placeholder.meta["val"].shape)
    outputs = []
    with torch.no_grad():
        for sample in np.asarray(samples, np.float32):
            first = np.ascontiguousarray(sample.transpose(2, 0, 1))
            shaped = first if rank == 4 else first[:, :, 0] if rank == 3 else first.reshape(-1)
            outputs.append(module(torch.from_numpy(shaped[None])).numpy().reshape(-1))
    return np.array(outputs)
