# SPDX-License-Identifier: Apache-2.0
"""Real networks and data beside the project, and the demonstration's own data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medyate.data import Dataset

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Samples:
    """Quantised training samples."""

    x: NDArray[np.int8]
    y: NDArray[np.int64]


def shared(name: str) -> Path:
    """A file of ../shared: read in place, never copied. Skips without it; under CI that is a failure."""
    path = ROOT.parent / "shared" / name
    if not path.exists():
        reason = f"../shared/{name} is not here: real networks and data are not part of the project"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def field_digits() -> Dataset:
    """The adaptation task of models/digitnet."""
    from task import load_adaptation

    split = load_adaptation()
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits in the field", names, split.x_train, split.y_train, split.x_test, split.y_test)
