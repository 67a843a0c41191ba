# SPDX-License-Identifier: Apache-2.0
"""What every strategy is given: the network, its ranking, a budget in a cost model, and the user's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medyate.errors import DataError
from medyate.ir import Graph, Weights
from medyate.plan.budget import ALPHA
from medyate.rank.collect import channel_squares
from medyate.rank.lara import COVERAGE, LayerScore, Ranking
from medyate.strategies.boost import Boost, parse_boost
from medyate.strategies.cost import PAPER, CostModel


@dataclass(frozen=True)
class Settings:
    """What a user may set; None: as the strategy says."""

    k: int | None = None
    """Number of candidate layers, for last-k of trained layers."""
    alpha: float = ALPHA
    """Largest budget as a share of the candidate layers."""
    coverage: float = COVERAGE
    """Share of the summed TraDy scores that the candidate layers hold."""
    boost: str = "none"
    """Start norms: none, lara, softmax(T) or rank."""
    scheme: str | None = None
    """Name of one of MCUNetV3's schemes, or a file of `medyate study scheme`."""
    weights: int | None = None
    """Velocity's budget in weights."""

    def __post_init__(self) -> None:
        """Raises DataError for values that mean nothing."""
        for name in ("k", "weights"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise DataError(
                    f"{name} = {value!r} is not a number above zero.", f"Leave {name} out or give 1 or more."
                )
        for name in ("alpha", "coverage"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 < value <= 1.0:
                raise DataError(f"{name} = {value!r} is outside (0, 1].", f"Give {name} as a share, like 0.2.")
        parse_boost(self.boost)


@dataclass(frozen=True)
class Problem:
    """One network to be trained within a budget."""

    graph: Graph
    weights: Weights
    ranking: Ranking
    budget: int
    cost: CostModel = PAPER
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def layers(self) -> tuple[LayerScore, ...]:
        """Every trainable layer in the network's order."""
        by_name = {score.layer: score for score in self.ranking.scores}
        return tuple(by_name[node.name] for node in self.graph if node.name in by_name)

    @cached_property
    def outputs(self) -> Mapping[str, int]:
        """Output channels of every layer."""
        shapes = self.graph.shapes
        return {node.name: shapes[node.output][2] for node in self.graph}

    @property
    def boost(self) -> Boost:
        """How start norms are made."""
        return parse_boost(self.settings.boost)

    def order(self, layers: tuple[LayerScore, ...]) -> tuple[LayerScore, ...]:
        """The same layers in the network's order, in which the device numbers their channels."""
        wanted = {layer.layer for layer in layers}
        return tuple(layer for layer in self.layers if layer.layer in wanted)

    def magnitudes(self, layer: LayerScore) -> NDArray[np.float64]:
        """||W_c||_2 of every input channel c of a layer."""
        import torch

        node = next(node for node in self.graph if node.name == layer.layer)
        weight = torch.from_numpy(np.asarray(self.weights[node.weight_name("weight")], np.float64))
        return np.asarray(channel_squares(weight, node).sqrt())
