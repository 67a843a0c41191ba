# SPDX-License-Identifier: Apache-2.0
"""The exported PyTorch program itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate.frontends.torch import read
from medyate.frontends.torch_program import program_input


def run(path: Path, samples: NDArray[Any]) -> NDArray[Any]:
    """Outputs (n, k), float32."""
    program = read(path)
    module = program.module()
    with torch.no_grad():
        outputs = [module(program_input(program, sample)).numpy().reshape(-1) for sample in samples]
    return np.array(outputs)
