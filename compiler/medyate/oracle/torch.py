# SPDX-License-Identifier: Apache-2.0
"""The exported PyTorch program itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate import files
from medyate.errors import ModelError
from medyate.frontends.torch import check_operations, read
from medyate.frontends.torch_program import program_input


def run(path: Path, samples: NDArray[Any]) -> NDArray[Any]:
    """Outputs (n, k), float32; a program of another precision takes its own. Raises ModelError where it fails."""
    program = read(path)
    check_operations(path, program)
    name = program.graph_signature.user_inputs[0]
    dtype = next(node for node in program.graph.nodes if node.name == name).meta["val"].dtype
    try:
        module = program.module(check_guards=False)  # guards are text of the file that would be run
        with torch.no_grad():
            outputs = [module(program_input(program, sample).to(dtype)).float().reshape(-1) for sample in samples]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"PyTorch cannot run '{path}' on this machine ({files.reason(error)}).", "Export it again in float32."
        ) from error
    return np.array([output.numpy() for output in outputs])
