# SPDX-License-Identifier: Apache-2.0
"""The int8 scheme: scales, zero points, fixed-point multipliers, and TFLite's rounding in PyTorch.

Weights are symmetric per output channel, activations asymmetric per tensor, accumulators int32.
A multiplier m is stored as mult * 2^(shift - 31) with mult in [2^30, 2^31).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.ir import Activation, Quant

QMIN, QMAX = -128, 127
UINT8_SHIFT = 128
"""What is taken off the numbers of a uint8 file."""
WEIGHT_MAX = 127
DELTA_MAX = 128
"""Largest magnitude of a weight's change within an epoch; also of a weight with a zero point."""
DEAD_RATIO = 2.0**-16
"""An output channel whose largest weight is below this share of its layer's largest is frozen."""
ADD_LEFT_SHIFT = 20
NARROW = 2**30
"""Accumulators below it can be doubled, which spares fast kernels an instruction."""


def products_max(taps: int, weight_zero: int = 0) -> int:
    """Largest sum of so many products of inputs with weights and deltas."""
    return taps * (WEIGHT_MAX + abs(weight_zero) + DELTA_MAX) * (2 * QMAX + 1)


def activation_quant(low: float, high: float) -> Quant:
    """Scale and zero point for a range, which is widened to hold zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / (QMAX - QMIN))) or 1.0  # model files hold float32
    zero = round(QMIN - low / scale)
    return Quant(float(scale), int(min(max(zero, QMIN), QMAX)))


def weight_scales(weight: NDArray[Any], channel_axis: int) -> NDArray[np.float64]:
    """One scale per output channel; dead channels get the smallest scale that is allowed."""
    axes = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    largest = np.abs(weight.astype(np.float64)).max(axis=axes)
    floor = max(float(largest.max()), 1e-12) * DEAD_RATIO
    scales: NDArray[np.float64] = (np.maximum(largest, floor) / WEIGHT_MAX).astype(np.float32).astype(np.float64)
    return scales


def fixed_point(multiplier: float) -> tuple[int, int]:
    """(mult, shift) of a positive multiplier, as TFLite's QuantizeMultiplier; too small becomes 0."""
    mantissa, exponent = math.frexp(multiplier)
    mult = math.floor(mantissa * 2**31 + 0.5)  # as TFLite: halves away from zero
    if mult == 2**31:
        mult //= 2
        exponent += 1
    if exponent < -31:
        return 0, 0
    return mult, exponent


def dead_channels(scales: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Output channels whose scale is at the bound below which they are frozen."""
    dead: NDArray[np.bool_] = scales <= scales.max() * DEAD_RATIO * (1 + 1e-9)
    return dead


def mean_pair(multiplier: float, count: int) -> tuple[int, int]:
    """(mult, shift) that bring a sum of `count` values to `multiplier` times their mean, as TFLite's MEAN has them.

    mult is cut off to whole numbers and may lie below 2^30.
    """
    mult, shift = fixed_point(multiplier)
    up = min(count.bit_length() - 1, 31 + shift)
    return (mult << up) // count, shift - up


def mantissa15(value: float) -> tuple[int, int]:
    """(m, e) with value ~ m * 2^e and m in [2^14, 2^15); (0, 0) for zero."""
    if value == 0.0:
        return 0, 0
    mantissa, exponent = math.frexp(value)
    m = round(mantissa * 2**15)
    if m == 2**15:
        m //= 2
        exponent += 1
    return m, exponent - 15


def half_away(value: float) -> int:
    """The nearest integer, halves away from zero: the rounding of C and TFLite."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def activation_bounds(activation: Activation, quant: Quant) -> tuple[int, int]:
    """The fused activation's range in output steps."""
    if activation is None:
        return QMIN, QMAX
    low, high = activation
    q_low = QMIN if math.isinf(low) else quant.zero + half_away(low / quant.scale)
    q_high = QMAX if math.isinf(high) else quant.zero + half_away(high / quant.scale)
    return max(QMIN, q_low), min(QMAX, q_high)


def requantize_exact(acc: Any, mult: Any, shift: Any) -> Any:
    """mdy_requantize on int64 tensors; mult and shift broadcast against acc."""
    left, right = shift.clamp(min=0), (-shift).clamp(min=0)
    x = (acc << left).clamp_(-(2**31), 2**31 - 1)
    high = x.mul_(mult).add_(1 << 30) >> 31  # halves go up
    below = (high >> 63) * (right > 0)  # halves go away from zero
    return below.add_(high).add_((1 << right) >> 1) >> right


def requantize_once(acc: Any, mult: Any, shift: Any) -> Any:
    """mdy_requantize of a runtime built with MDY_ROUND_ONCE: floor of the exact product plus a half."""
    right = 31 - shift
    return ((acc * mult + (1 << (right - 1))) >> right).clamp(-(2**31), 2**31 - 1)


@dataclass(frozen=True)
class Integers:
    """What an operation's integer forward needs to know of its tensors."""

    inputs: tuple[Quant, ...]
    output: Quant
    arrays: Mapping[str, Any]
    """The node's quantised arrays by role."""
    bounds: tuple[int, int]
    rounds_once: bool
    """See QGraph."""

    def rescale(self, acc: Any, mult: Any, shift: Any) -> Any:
        """Accumulators times the multiplier, rounded as this network's format rounds."""
        return (requantize_once if self.rounds_once else requantize_exact)(acc, mult, shift)

    @property
    def multipliers(self) -> tuple[float, ...]:
        """Real multipliers of the requantisation: one per output channel of a layer, or one, of a pool's mean too."""
        return tuple(float(value) for value in self.arrays.get("multiplier", ()))

    @property
    def weight_zero(self) -> int:
        """Zero point of the weights."""
        return int(self.arrays.get("zero", 0))

    def requantize(self, acc: Any) -> Any:
        """Output steps of int32 accumulators (N, C, H, W); its gradient is mask * multiplier."""
        mult, shift = pair_tensors(self.multipliers, acc.device)
        real = _column(self.multipliers, acc)
        value = self.rescale(acc.detach().round().long(), mult, shift) + self.output.zero
        return through(value, acc * real, self.bounds, masked=True)

    def scaled_mean(self, sums: Any, count: int) -> Any:
        """Output steps of sums of `count` inputs minus their zero point.

        A pool is not masked: its output saturates only where its calibration was exceeded.
        """
        import torch

        real = self.multipliers[0]
        mult, shift = (torch.tensor(part, device=sums.device) for part in mean_pair(real, count))
        value = self.rescale(sums.detach().round().long(), mult, shift) + self.output.zero
        return through(value, sums * (real / count), self.bounds, masked=False)

    def mean(self, sums: Any, counts: Any, origin: int) -> Any:
        """The average of stored values minus `origin`: halves away from zero, or to the even number."""
        exact, pixels = sums.detach().round().long(), counts.long()
        size = (exact.abs() + pixels // 2) // pixels
        if self.rounds_once:
            size = size - ((2 * (exact.abs() % pixels) == pixels) & (size % 2 == 1)).long()
        value = size * exact.sign() + origin
        return through(value, sums / counts, self.bounds, masked=False)

    def look_up(self, x: Any) -> Any:
        """A function's table; the gradient is its slope."""
        import torch

        index = x.detach().round().long() - QMIN
        table, slope = (torch.from_numpy(np.array(self.arrays[role], np.float64)) for role in ("table", "slope"))
        smooth = x * slope[index]
        return table[index] + (smooth - smooth.detach())

    def add(self, a: Any, b: Any) -> Any:
        """TFLite's reference sum of two tensors."""
        total = 0
        largest = 2 * max(self.inputs[0].scale, self.inputs[1].scale)
        exact = 0
        for x, quant in ((a, self.inputs[0]), (b, self.inputs[1])):
            mult, shift = pair_tensors((quant.scale / largest,), x.device)
            steps = (x.detach().round().long() - quant.zero) << ADD_LEFT_SHIFT
            exact = exact + self.rescale(steps, mult, shift)
            total = total + (x - quant.zero) * (quant.scale / self.output.scale)
        mult, shift = pair_tensors((add_output_multiplier(self.inputs, self.output),), a.device)
        value = self.rescale(exact, mult, shift) + self.output.zero
        return through(value, total, self.bounds, masked=True)


def add_output_multiplier(inputs: Sequence[Quant], output: Quant) -> float:
    """The last multiplier of TFLite's ADD."""
    largest = 2 * max(inputs[0].scale, inputs[1].scale)
    return float(largest / (2**ADD_LEFT_SHIFT * output.scale))


def pair_tensors(multipliers: Sequence[float], device: Any) -> tuple[Any, Any]:
    """(mult, shift) of several multipliers as int64 tensors that broadcast over (N, C, H, W)."""
    import torch

    pairs = [fixed_point(value) for value in multipliers]
    mult = torch.tensor([pair[0] for pair in pairs], device=device).view(1, -1, 1, 1)
    shift = torch.tensor([pair[1] for pair in pairs], device=device).view(1, -1, 1, 1)
    return mult, shift


def _column(values: Sequence[float], like: Any) -> Any:
    import torch

    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def through(value: Any, smooth: Any, bounds: tuple[int, int], *, masked: bool) -> Any:
    """`value` clamped, with the gradient of `smooth`; if masked, where it is strictly inside the bounds."""
    low, high = bounds
    clamped = value.clamp(low, high).to(smooth.dtype)
    inside = (clamped > low) & (clamped < high)
    passing = smooth * inside if masked else smooth
    return clamped.detach() + (passing - passing.detach())  # exactly the integer: the bracket is zero
