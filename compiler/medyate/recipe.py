# SPDX-License-Identifier: Apache-2.0
"""How a network is trained where a user says nothing: one pair of numbers for whatever is selected.

The gradient's norm of a layer is bounded in each step. Without that a rate at which a sparse update learns well makes
a full one diverge. Measured in docs/RESULTS.md; DESIGN.md, section 6.
"""

from __future__ import annotations

RATE = 0.01
"""Peak learning rate at one sample per update."""
CLIP = 0.3
"""Largest Euclidean norm of what one step takes of a layer's gradient; the head is not bounded."""
