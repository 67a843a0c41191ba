# SPDX-License-Identifier: Apache-2.0
"""A network and its data, as every cell of a study meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medyate import datasets, frontends
from medyate.datasets import Dataset
from medyate.errors import DataError
from medyate.ir import Shape
from medyate.passes.pipeline import Normalised, normalise
from medyate.study.spec import Samples


@dataclass(frozen=True)
class Task:
    """A network and its data, as they meet."""

    normal: Normalised
    dataset: Dataset
    samples: Mapping[str, NDArray[np.float32]]
    """Real values of 'train' and 'test'."""


@lru_cache(maxsize=1)  # cells of one task follow each other
def load_task(network: str, source: str, samples: Samples) -> Task:
    """Reads both. Raises MedyateError where they do not fit together."""
    _one_thread()
    imported = frontends.load(Path(network))
    normal = normalise(imported)
    shape = normal.graph.shapes[normal.graph.input]
    dataset = load_data(source, samples, shape).check(shape)
    if dataset.regression:
        raise DataError(f"'{dataset.name}' has no classes.", "Studies compare accuracies.")
    meaning = datasets.scaling(samples.pixels, dataset.x_train, imported.input_quant)
    parts = {"train": meaning.real(dataset.x_train), "test": meaning.real(dataset.x_test)}
    return Task(normal, dataset, parts)


def load_data(source: str, samples: Samples, shape: Shape) -> Dataset:
    """As many samples as are wanted, in the size of a network's input."""
    chosen = datasets.load(source, samples.split).first(samples.limit, samples.test_limit)
    return chosen.resized(shape) if samples.resize else chosen


def _one_thread() -> None:
    """Cells run side by side; threads of one would wait for each other."""
    import torch

    torch.set_num_threads(1)
