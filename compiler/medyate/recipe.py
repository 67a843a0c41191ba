# SPDX-License-Identifier: Apache-2.0
"""How a network is trained where a user says nothing: one pair of numbers for whatever is selected.

The gradient's norm of a layer is bounded in each step. Without that a rate at which a sparse update learns well makes
a full one diverge. Measured in docs/RESULTS.md; DESIGN.md, section 6.
"""

from __future__ import annotations

from medyate.errors import DataError

RATE = 0.01
"""Peak learning rate at one sample per update."""
CLIP = 0.3
"""Largest Euclidean norm of what one step takes of a layer's gradient; the head is not bounded."""
CLIPS = (1e-3, 1024.0)
"""The least and the largest, as the device keeps them; 0: none."""


def check_clip(clip: float) -> float:
    """A clip that the device can keep. Raises DataError."""
    if clip != 0.0 and not CLIPS[0] <= clip <= CLIPS[1]:
        raise DataError(f"a clip of {clip:g} is no norm from {CLIPS[0]:g} to {CLIPS[1]:g}.", "Give one, or 0 for none.")
    return clip
