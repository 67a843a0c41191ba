# SPDX-License-Identifier: Apache-2.0
"""The range of every tensor that the 256 steps of int8 cover, by several methods.

minmax       all that the calibration samples showed
percentile   all but the rarest values: an equal share is cut at either end
mse          the range with the least expected squared error: what it cuts off, plus step^2 / 12 for
             every value inside (Banner et al. 2019, "Post training 4-bit quantization", section 3)

A value of exactly zero has a step of its own in every range, so it costs nothing and does not count.
Two kinds of tensors are not cut, whatever the method: the input, whose samples say themselves which
steps they need (`input_range`), and outputs, where the rare large value is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import QMAX, QMIN, activation_quant
from medyate.errors import DataError, GraphError
from medyate.ir import Graph, Quant, Weights
from medyate.ops import OPS

BATCH = 32
BINS = 2048
CANDIDATES = 128
"""Ends that the search tries on either side of zero."""
VALUES = 1 << 18
"""Of one tensor in one batch, evenly spaced, that a histogram counts."""
LATTICE_ERROR = 0.01
"""Share of a step by which samples on a lattice may miss it: what float32 does to them."""
STRETCHES = 32
"""Widths of the input's range that are tried, each 1/1024 above the one before."""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a network of real numbers becomes integers. tools/quantize_study.py measured the defaults."""

    method: str = "mse"
    """Of the activations' ranges: 'minmax', 'percentile' or 'mse'."""
    percentile: float = 99.99
    """Of the values that method 'percentile' keeps, in percent."""
    bias_correction: bool = True
    """Whether biases take back the mean error of their layer: `bias_correction.py`."""
    equalise: bool = False
    """Whether channels between two layers are scaled to fill one range: `equalise.py`."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise GraphError(f"there is no calibration '{self.method}'.", f"There are {', '.join(METHODS)}.")
        if not 50.0 < self.percentile <= 100.0:
            raise GraphError(f"a percentile of {self.percentile:g} keeps too little.", "Give one like 99.99.")


@dataclass(frozen=True, slots=True)
class Histogram:
    """The values of one tensor other than zero, in equal bins from `low` to `high`; zero lies within."""

    low: float
    high: float
    counts: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of every bin."""
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        centres: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
        return centres


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """The range that leaves out at most (100 - percentile) / 2 percent of the values at either end."""
    total = histogram.counts.sum()
    if total == 0:
        return histogram.low, histogram.high
    spare = total * (100.0 - percentile) / 200.0
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    first = int(np.searchsorted(np.cumsum(histogram.counts), spare, side="right"))
    last = int(np.searchsorted(np.cumsum(histogram.counts[::-1]), spare, side="right"))
    top = len(edges) - 1
    return min(float(edges[min(first, top)]), 0.0), max(float(edges[max(top - last, 0)]), 0.0)


def mse_range(histogram: Histogram) -> Range:
    """The range within the histogram's whose int8 steps have the least expected squared error."""
    if histogram.counts.sum() == 0:
        return histogram.low, histogram.high
    lows = np.unique(np.linspace(histogram.low, 0.0, CANDIDATES))
    highs = np.unique(np.linspace(0.0, histogram.high, CANDIDATES))
    errors = expected_error(histogram, lows[:, None], highs[None, :])
    best = np.unravel_index(np.argmin(errors), errors.shape)
    return float(lows[best[0]]), float(highs[best[1]])


def expected_error(histogram: Histogram, low: Any, high: Any) -> NDArray[np.float64]:
    """Expected squared error, summed over the values, of int8 steps from low to high; both broadcast."""
    x, counts = histogram.centres, histogram.counts
    cut_low, many_low = _beyond(-x[::-1], counts[::-1], -np.asarray(low, np.float64))
    cut_high, many_high = _beyond(x, counts, np.asarray(high, np.float64))
    step = (np.asarray(high) - np.asarray(low)) / (QMAX - QMIN)
    errors: NDArray[np.float64] = cut_low + cut_high + (counts.sum() - many_low - many_high) * step**2 / 12
    return errors


def _beyond(x: NDArray[Any], counts: NDArray[Any], end: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(sum of the squared distances of the values above `end`, how many they are); x ascends."""
    sums = [np.append(np.cumsum((counts * x**power)[::-1])[::-1], 0.0) for power in range(3)]
    many, first, second = (s[np.searchsorted(x, end, side="right")] for s in sums)
    return np.maximum(second - 2 * end * first + end**2 * many, 0.0), many


METHODS: Mapping[str, Callable[[Histogram, Calibration], Range]] = {
    "minmax": lambda h, _: (h.low, h.high),
    "percentile": lambda h, c: percentile_range(h, c.percentile),
    "mse": lambda h, _: mse_range(h),
}


def observe_ranges(
    graph: Graph, weights: Weights, samples: NDArray[np.float32], keep: Callable[[str, Any], None] | None = None
) -> dict[str, Range]:
    """Smallest and largest value of every tensor over the samples (N, H, W, C); zero is always within.

    `keep` is shown every tensor, too. Raises DataError where a value is no finite number.
    """
    if not len(samples):
        raise DataError("there are no samples to calibrate on.", "Give some.")
    ranges: dict[str, Range] = {}

    def observe(name: str, value: Any) -> None:
        found = [float(end) for end in value.aminmax()]  # NaN, if there is one
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = min(low, found[0]), max(high, found[1])
        if not np.isfinite(found).all():
            raise DataError(
                f"on the calibration samples, '{name}' holds NaN or infinite values.", "Clean or scale the samples."
            )
        if keep is not None:
            keep(name, value)

    watch(graph, weights, samples, observe)
    return ranges


def observe_histograms(graph: Graph, weights: Weights, samples: NDArray[np.float32]) -> dict[str, Histogram]:
    """How the values of every tensor lie within its range.

    A histogram needs the range first, so some values of each batch are kept: about as many as one batch has in all.
    """
    kept: dict[str, list[Any]] = {}

    def keep(name: str, value: Any) -> None:
        kept.setdefault(name, []).append(_thinned(value.contiguous().view(-1), VALUES).clone())

    ranges = observe_ranges(graph, weights, samples, keep)
    return {name: _histogram(kept.pop(name), *extent) for name, extent in ranges.items()}


def _histogram(parts: list[Any], low: float, high: float) -> Histogram:
    """Of values other than zero."""
    counts = np.zeros(BINS)
    for values in parts if low < high else []:
        found = values.histc(BINS, low, high).double()
        zeros = values.new_zeros(1).histc(BINS, low, high).double() * (len(values) - values.count_nonzero())
        counts += (found - zeros).numpy()
    return Histogram(low, high, counts)


def watch(graph: Graph, weights: Weights, samples: NDArray[np.float32], observe: Callable[[str, Any], None]) -> None:
    """Shows every tensor of the network to `observe`, batch by batch, in real numbers."""
    import torch

    from medyate.real import Network, channels_first

    network = Network(graph, weights)
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            network(channels_first(samples[start : start + BATCH]), observe)


def choose_ranges(
    graph: Graph, weights: Weights, samples: NDArray[np.float32], calibration: Calibration
) -> dict[str, Range]:
    """The range of every tensor by the calibration's method."""
    if calibration.method == "minmax":
        ranges = observe_ranges(graph, weights, samples)
        return {**ranges, graph.input: input_range(samples, ranges[graph.input])}
    choose, whole = METHODS[calibration.method], answers(graph)
    histograms = observe_histograms(graph, weights, samples)
    ranges = {name: (h.low, h.high) if name in whole else choose(h, calibration) for name, h in histograms.items()}
    seen = histograms[graph.input]
    return {**ranges, graph.input: input_range(samples, (seen.low, seen.high))}


def answers(graph: Graph) -> frozenset[str]:
    """The output, and the tensors before it from which no weights separate it: the logits of a softmax."""
    found, name = {graph.output}, graph.output
    while (node := graph.producer.get(name)) is not None and _only_reshapes(graph, name):
        name = node.inputs[0]
        found.add(name)
    return frozenset(found)


def _only_reshapes(graph: Graph, name: str) -> bool:
    node = graph.producer[name]
    op = OPS[node.op]
    whole = int(np.prod(graph.shapes[name])) == int(np.prod(graph.shapes[node.inputs[0]]))
    return op.channel_axes is None and len(node.inputs) == 1 and whole


def input_range(samples: NDArray[np.float32], seen: Range) -> Range:
    """The input's range: the samples' own steps if int8 holds them, else the range with the least error.

    Scaled pixels are 256 values already, and a range from the smallest to the largest seldom meets them:
    pixel / 127.5 - 1 misses every single one by half a step, and by a third of a step on average once
    the range is half a percent wider.
    """
    values = np.unique(np.append(_thinned(samples.reshape(-1), VALUES), seen)).astype(np.float64)
    own = lattice_range(values)
    if own is not None:
        return own
    wider = [(seen[0] * share, seen[1] * share) for share in 1 + np.arange(STRETCHES) / 1024]
    return min(wider, key=lambda extent: _squared_error(values, activation_quant(*extent)))


def _squared_error(values: NDArray[np.float64], quant: Quant) -> float:
    steps = np.clip(np.round(values / quant.scale) + quant.zero, QMIN, QMAX)
    return float((((steps - quant.zero) * quant.scale - values) ** 2).sum())


def lattice_range(values: NDArray[np.float64]) -> Range | None:
    """The range whose steps meet all values, which ascend and hold zero; None where there is none.

    Spare steps go to the sides on which there are values: other samples may lie a little further out.
    """
    steps_max = QMAX - QMIN
    if not 2 <= len(values) <= steps_max + 1:
        return None
    steps = np.round((values - values[0]) / float(np.diff(values).min()))
    scale = float((steps @ (values - values[0])) / (steps @ steps))  # float32 blurs each single distance
    low, high = round(values[0] / scale), round(values[-1] / scale)
    if high - low > steps_max or np.abs(values / scale - np.round(values / scale)).max() > LATTICE_ERROR:
        return None
    finer = steps_max // (high - low)
    spare = steps_max - finer * (high - low)
    below = spare if high <= 0 else 0 if low >= 0 else spare // 2
    start = finer * low - below
    return start * scale / finer, (start + steps_max) * scale / finer


def _thinned(values: Any, most: int) -> Any:
    """Every n-th of a flat array, n odd so that it meets all columns and channels."""
    return values[:: len(values) // most | 1]
