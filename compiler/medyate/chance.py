# SPDX-License-Identifier: Apache-2.0
"""How far two accuracies may be apart by chance."""

from __future__ import annotations

import math

NOISE = 2.0
"""Standard deviations of a difference of two accuracies that chance explains."""


def chance(first: float, second: float, samples: int, deviations: float = NOISE) -> float:
    """The largest difference between two accuracies that chance explains."""
    return deviations * math.sqrt((first * (1 - first) + second * (1 - second)) / samples)
