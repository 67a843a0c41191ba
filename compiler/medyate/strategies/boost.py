# SPDX-License-Identifier: Apache-2.0
"""Start norms of the candidate channels: equal, or larger in layers that rank higher.

A boost only changes the first draw of a strategy that observes norms, and every draw of one that does not.
Source: MeDyate, arXiv 2510.20979, appendix A.2 (`lara`); softmax and rank are weaker and stronger forms of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medyate.errors import DataError
from medyate.rank.lara import LayerScore

ONE = 1 << 16
"""The start norm of the highest layer; a norm is an integer of 32 bits on the device."""
SOFTMAX = re.compile(r"softmax\((\d*\.?\d+)\)")

Boost = Callable[[Sequence[LayerScore]], NDArray[np.int64]]
"""Start norm of a channel of each layer, from 1 to ONE."""


def _shares(values: Sequence[float]) -> NDArray[np.int64]:
    """Integers in the proportion of `values`, the largest ONE, none below 1."""
    array = np.array(values, np.float64)
    largest = array.max(initial=0.0)
    scaled = array / largest if largest > 0 else np.ones_like(array)
    return np.maximum(1, np.rint(ONE * scaled)).astype(np.int64)


def none(layers: Sequence[LayerScore]) -> NDArray[np.int64]:
    """Equal norms."""
    return np.ones(len(layers), np.int64)


def lara(layers: Sequence[LayerScore]) -> NDArray[np.int64]:
    """In the proportion of LaRa."""
    return _shares([layer.lara for layer in layers])


def rank(layers: Sequence[LayerScore]) -> NDArray[np.int64]:
    """K for the highest of K layers, 1 for the lowest."""
    order = np.argsort(np.argsort([-layer.lara for layer in layers], kind="stable"), kind="stable")
    return np.asarray(len(layers) - order, np.int64)


def softmax(temperature: float) -> Boost:
    """In the proportion of exp(LaRa / (T * largest LaRa))."""

    def boost(layers: Sequence[LayerScore]) -> NDArray[np.int64]:
        values = np.array([layer.lara for layer in layers])
        relative = values / (values.max(initial=0.0) or 1.0)
        return _shares(list(np.exp((relative - 1.0) / temperature)))

    return boost


def parse_boost(text: str) -> Boost:
    """none, lara, rank or softmax(T). Raises DataError."""
    match = SOFTMAX.fullmatch(text) if isinstance(text, str) else None
    if match is not None and float(match[1]) > 0:
        return softmax(float(match[1]))
    named = {"none": none, "lara": lara, "rank": rank}
    if text not in named:
        raise DataError(
            f"boost {text!r} is unknown.", f"It is one of {', '.join(named)} and softmax(T), like softmax(0.5)."
        )
    return named[text]
