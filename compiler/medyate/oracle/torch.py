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
from medyate.oracle import Given


def run(path: Path, given: Given) -> NDArray[Any]:
    """Outputs (n, k), real numbers."""
    program = read(path)
    module = program.module()
    with torch.no_grad():
        outputs = [_channels_last(module(program_input(program, sample))) for sample in given.real]
    return np.array(outputs)


def _channels_last(output: torch.Tensor) -> NDArray[Any]:
    """An output (1, C, ...) in the order of the IR."""
    known = output.to(torch.float32) if output.dtype == torch.bfloat16 else output
    return known.movedim(1, -1).numpy().reshape(-1)
