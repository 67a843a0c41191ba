# SPDX-License-Identifier: Apache-2.0
"""What a selection costs: in the papers' elements, or in the bytes that the device keeps.

Both are read off the ledger; a budget is in the unit of its cost model. Classifier, biases and masks are outside of
it, as in the papers. Source: MeDyate, arXiv 2510.20979, eq. 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from medyate.errors import DataError
from medyate.ledger import ChannelCost
from medyate.rank.lara import LayerScore


@dataclass(frozen=True)
class CostModel:
    """One way to count."""

    name: str
    unit: str
    channel: Callable[[ChannelCost], int]
    """Cost of one selected input channel."""

    def layer(self, layer: LayerScore) -> int:
        """M of a whole layer."""
        return layer.channels * self.channel(layer.cost)

    def layers(self, layers: Iterable[LayerScore]) -> int:
        """M of a search space."""
        return sum(map(self.layer, layers))


PAPER = CostModel("paper", "elements", lambda cost: cost.elements)
DEVICE = CostModel("device", "bytes", lambda cost: cost.record_bytes)
COSTS = {model.name: model for model in (PAPER, DEVICE)}


def cost_model(name: str) -> CostModel:
    """The cost model of a name. Raises DataError."""
    if name not in COSTS:
        raise DataError(f"there is no cost model '{name}'.", f"It is one of {', '.join(COSTS)}.")
    return COSTS[name]
