# SPDX-License-Identifier: Apache-2.0
"""Where a ranking comes from: enough to make it again, or to see that it was made from something else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.datasets import Dataset
from medyate.ir import Weights
from medyate.version import VERSION


@dataclass(frozen=True)
class Provenance:
    """Of a preliminary fine-tuning."""

    epochs: int
    seed: int
    samples: int
    """Training samples; a step takes 16."""
    data_digest: str
    """SHA-256 of the training samples and labels, shortened."""
    weights_digest: str
    """Of the network's weights at the start."""
    version: str
    """Of medyate."""

    def to_json(self) -> dict[str, Any]:
        """Readable form."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Provenance:
        """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
        epochs, seed, samples = (int(content[name]) for name in ("epochs", "seed", "samples"))
        data, weights, version = (str(content[name]) for name in ("data_digest", "weights_digest", "version"))
        return Provenance(epochs, seed, samples, data, weights, version)


def provenance(dataset: Dataset, weights: Weights, epochs: int, seed: int) -> Provenance:
    """Of a ranking that is about to be made."""
    samples = {"x": dataset.x_train, "y": dataset.y_train}
    return Provenance(epochs, seed, len(dataset.x_train), digest(samples), digest(weights), VERSION)


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """64 bits that change with any name, type, shape or value."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]
