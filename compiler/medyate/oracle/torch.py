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
from medyate.oracle import Given


def run(path: Path, given: Given) -> NDArray[Any]:
    """Outputs (n, k), real numbers in the program's own precision. Raises ModelError where it fails."""
    program = read(path)
    check_operations(path, program)
    try:
        module = program.module(check_guards=False)  # guards are text of the file that would be run
        with torch.no_grad():
            results = [module(program_input(program, sample)) for sample in given.real]
        outputs = [_channels_last(_chosen(program, result, given.output)) for result in results]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"PyTorch cannot run '{path}' on this machine ({files.reason(error)}).", "Export it again in float32."
        ) from error
    return np.array(outputs)


def _chosen(program: torch.export.ExportedProgram, outputs: Any, name: str) -> torch.Tensor:
    """One of the tensors that a program returns."""
    names = [end for end in program.graph_signature.user_outputs if isinstance(end, str)]
    found = [value for value in torch.utils._pytree.tree_leaves(outputs) if isinstance(value, torch.Tensor)]
    chosen: torch.Tensor = found[names.index(name) if name else 0]
    return chosen


def _channels_last(output: torch.Tensor) -> NDArray[Any]:
    """An output (1, C, ...) in the order of the IR; bfloat16, which NumPy lacks, as the next wider type."""
    known = output.to(torch.float32) if output.dtype == torch.bfloat16 else output
    return (known.movedim(1, -1) if known.ndim > 1 else known).numpy().reshape(-1)
