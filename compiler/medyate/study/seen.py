# SPDX-License-Identifier: Apache-2.0
"""What an epoch sees of its channels' gradients: DESIGN.md, section 6, says which of these the device keeps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medyate.ir import Node
from medyate.rank.collect import channel_squares
from medyate.sample.policy import LAST, SUM


class Seen:
    """Norms of the input channels of layers over the steps of one epoch."""

    def __init__(self, kind: str) -> None:
        """`kind`: one of sample.policy.NORMS."""
        self.kind = kind
        self._kept: dict[str, torch.Tensor] = {}

    def add(self, node: Node, gradient: torch.Tensor) -> None:
        """Takes one step's gradient of a layer."""
        own = gradient.clone() if self.kind == SUM else channel_squares(gradient, node)
        before = None if self.kind == LAST else self._kept.get(node.name)
        self._kept[node.name] = own if before is None else before + own

    def norms(self, node: Node) -> NDArray[np.float64]:
        """One number per channel."""
        kept = self._kept[node.name]
        squares = channel_squares(kept, node) if self.kind == SUM else kept
        return np.asarray(squares.sqrt().double().cpu())
