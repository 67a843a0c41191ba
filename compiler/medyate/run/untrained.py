# SPDX-License-Identifier: Apache-2.0
"""Do the weights of a network look as if nobody had trained it? The method is for pretrained networks.

Initial weights are drawn alike within a layer, whatever the scale: their mean is zero, no input or output channel has
larger ones than another, and they are uniform or normal, cut off or not. Training changes at least one of these in
nearly every layer but small ones. Measured: in networks that were trained, layers that look initial hold at most 0.20
of the weights (MobileNetV2-w0.35; most: 0); in torch modules as they are made, by five initialisations, nearly all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.ir import Graph, Weights

LEAST = 200
"""Weights of a layer that tell something."""
DEVIATIONS = 4.0
"""Of a statistic from what it is among initial weights."""
KURTOSIS = (1.5, 3.4)
"""From uniform to normal, with room for small samples."""
CHANNELS = {"conv2d": (0, 3), "depthwise": (2, None)}
"""Axes of output and input channels."""


def untrained_share(graph: Graph, weights: Weights) -> float | None:
    """Share of the weights in layers that look initial; the classifier, which is often new, is left out.

    None where no layer is large enough.
    """
    layers = [node for node in graph if node.op in CHANNELS][:-1]
    initial, total = 0, 0
    for node in layers:
        values = _real(weights, node.name, CHANNELS[node.op][0])
        if values.size >= LEAST:
            total += values.size
            initial += values.size * looks_initial(values, CHANNELS[node.op])
    return initial / total if total else None


def looks_initial(values: NDArray[np.float64], axes: tuple[int | None, ...]) -> bool:
    """Whether weights could have been drawn alike. `axes`: those of output and input channels, None without one."""
    variance = float(values.var())
    if variance == 0.0:
        return False
    kurtosis = float(((values - values.mean()) ** 4).mean()) / variance**2
    if not KURTOSIS[0] < kurtosis < KURTOSIS[1] or abs(values.mean()) > DEVIATIONS * np.sqrt(variance / values.size):
        return False
    return all(axis is None or _are_alike(values, axis, kurtosis) for axis in axes)


def _are_alike(values: NDArray[np.float64], axis: int, kurtosis: float) -> bool:
    """Whether the mean squares of the channels differ by no more than chance."""
    channels = values.shape[axis]
    if channels < 2:
        return True
    each = values.size // channels
    squares = (np.moveaxis(values, axis, 0).reshape(channels, each) ** 2).mean(1)
    spread = float(((squares / squares.mean() - 1) ** 2).sum()) * each / (kurtosis - 1) / (channels - 1)
    return bool(spread - 1 < DEVIATIONS * np.sqrt((2 + 8 / each) / (channels - 1)))


def _real(weights: Weights, layer: str, channel_axis: int) -> NDArray[np.float64]:
    """A layer's weights; integers times their scales."""
    stored: NDArray[Any] = weights[f"{layer}.weight"]
    values = stored.astype(np.float64)
    if not np.issubdtype(stored.dtype, np.integer):
        return values
    shape = [1] * values.ndim
    shape[channel_axis] = -1
    values -= np.asarray(weights.get(f"{layer}.zero", 0), np.float64)
    return values * np.asarray(weights[f"{layer}.scale"], np.float64).reshape(shape)
