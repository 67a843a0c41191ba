# SPDX-License-Identifier: Apache-2.0
"""Real networks and data beside the project, and the demonstration's own data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medyate.datasets import Dataset

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


TAKE_LONG = (
    "mobilenet_v",
    "mbv2",
    "mcunet",
    ".th",
    "mobilenetv1_025_96_int8",
    "025_96_float",
    "person",
    "10_float",
)
"""In the names of networks whose training takes a minute and more in a test."""


def some_long(values: Iterable[Any], takes_long: Callable[[Any], bool]) -> list[Any]:
    """Parameters of a test, one or a tuple of several each, of which some are for `make test-long`."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.long)
        if takes_long(value)
        else value
        for value in values
    ]


def field_digits() -> Dataset:
    """The adaptation task of models/digitnet."""
    from task import load_adaptation

    split = load_adaptation()
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits in the field", names, split.x_train, split.y_train, split.x_test, split.y_test)
