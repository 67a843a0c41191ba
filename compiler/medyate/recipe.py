# SPDX-License-Identifier: Apache-2.0
"""How a network is trained where a user says nothing: one pair of numbers for whatever is selected.

The gradient's norm of a layer is bounded in each step. Without that a rate at which a sparse update learns well makes
a full one diverge. Measured in docs/RESULTS.md; DESIGN.md, section 6.
"""

from __future__ import annotations

import math

from medyate.errors import DataError

RATE = 0.01
"""Peak learning rate at one sample per update."""
CLIP = 0.3
"""Largest Euclidean norm of what one step takes of a layer's gradient; the head is not bounded."""
CLIPS = (1e-3, 1024.0)
"""The least and the largest, as the device keeps them; 0: none."""

SMOOTHING_MAX = 0.5
"""Share of a label that may go to all classes alike."""
SHIFT_MAX = 31
"""Pixels: MDY_SHIFT_MAX."""

BATCH_MAX = 64
"""Samples of one update on the device: 2 to the MDY_BATCH_LOG2_MAX."""


def over_horizon(rate: float, clip: float, steps: int, total: int) -> tuple[float, float]:
    """Peak rate and clip of a training of `total` steps, from the best ones of trainings of `steps`.

    A short training favours rates that are too high for a long one: single samples' noise adds up with every step. The
    longest step, rate times clip, stays what it was: what the clip kept from breaking a network, a lower rate does.
    DESIGN.md, section 6.
    """
    share = min(1.0, math.sqrt(steps / total))
    return rate * share, min(clip / share, CLIPS[1])


def check_augmentation(shift: int, smoothing: float) -> None:
    """Raises DataError for what the device does not do."""
    if not 0 <= shift <= SHIFT_MAX:
        raise DataError(f"--shift {shift} is not between 0 and {SHIFT_MAX} pixels.", "Give 0 for none.")
    if not 0.0 <= smoothing <= SMOOTHING_MAX:
        raise DataError(f"--smoothing {smoothing:g} is not between 0 and {SMOOTHING_MAX:g}.", "Give 0 for none.")


def check_batch(samples: int) -> int:
    """A number of samples of one update that the device knows. Raises DataError."""
    if samples not in (1 << bits for bits in range(BATCH_MAX.bit_length())):
        raise DataError(
            f"a batch of {samples} samples is no power of two from 1 to {BATCH_MAX}.", "Give one, like 4 or 16."
        )
    return samples


def check_clip(clip: float) -> float:
    """A clip that the device can keep. Raises DataError."""
    if clip != 0.0 and not CLIPS[0] <= clip <= CLIPS[1]:
        raise DataError(f"a clip of {clip:g} is no norm from {CLIPS[0]:g} to {CLIPS[1]:g}.", "Give one, or 0 for none.")
    return clip
