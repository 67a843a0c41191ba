# SPDX-License-Identifier: Apache-2.0
"""Layer rankings from gradient norms and the ledger. Pure arithmetic.

LaRa_i = ||dL/dW_i||_2 / sum_c (C_W + C_A)              MeDyate, arXiv 2510.20979, eq. 9
TraDy_i = sum_c ||(dL/dW_i)_c||_2 / (C_W + C_A)         TraDy, arXiv 2510.19675, eq. 8
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medyate import files
from medyate.errors import ArtefactError, DataError
from medyate.ir import Graph
from medyate.ledger import ChannelCost
from medyate.ops import OPS
from medyate.optimizer import Optimizer
from medyate.rank.collect import GradientNorms
from medyate.rank.provenance import Provenance

COVERAGE = 0.97
"""TraDy's share of the cumulated RGN that its candidate layers hold."""


@dataclass(frozen=True)
class LayerScore:
    """One trainable layer's place in the ranking."""

    layer: str
    lara: float
    trady: float
    channels: int
    cost: ChannelCost

    @property
    def elements(self) -> int:
        """M of one layer in the papers' elements: its weights and its whole input."""
        return self.channels * self.cost.elements

    @property
    def bytes(self) -> int:
        """The same as records in the epoch region."""
        return self.channels * self.cost.record_bytes


@dataclass(frozen=True)
class Ranking:
    """Layers by falling LaRa."""

    network: str
    task: str
    scores: tuple[LayerScore, ...]
    made: Provenance | None = None
    """None: not known, as in files of earlier versions."""

    def trained_by(self, optimizer: Optimizer, samples: int) -> Ranking:
        """With what records cost where one update is of so many samples."""
        scores = (replace(score, cost=score.cost.trained_by(optimizer, samples)) for score in self.scores)
        return replace(self, scores=tuple(scores))

    def to_json(self) -> dict[str, Any]:
        """Readable form; reused for other tasks."""
        layers = [
            {
                "layer": s.layer,
                "lara": s.lara,
                "trady": s.trady,
                "channels": s.channels,
                "channel_weights": s.cost.weights,
                "channel_activations": s.cost.activations,
            }
            for s in self.scores
        ]
        made = {} if self.made is None else {"made": self.made.to_json()}
        return {"network": self.network, "task": self.task, **made, "layers": layers}

    @staticmethod
    def from_json(content: Mapping[str, Any], graph: Graph) -> Ranking:
        """Reads a stored ranking. Raises ArtefactError when it is of another architecture."""
        costs = channel_costs(graph)
        try:
            scores = tuple(
                LayerScore(
                    entry["layer"],
                    float(entry["lara"]),
                    float(entry["trady"]),
                    int(entry["channels"]),
                    ChannelCost(int(entry["channel_weights"]), int(entry["channel_activations"])),
                )
                for entry in content["layers"]
            )
            mine = {s.layer: (s.channels, s.cost) for s in scores}
            made = Provenance.from_json(content["made"]) if "made" in content else None
            ordered = tuple(sorted(scores, key=lambda score: -score.lara))
            ranking = Ranking(str(content["network"]), str(content["task"]), ordered, made)
        except files.DAMAGE as error:
            raise ArtefactError(f"the ranking is damaged ({error}).", "Run `medyate rank` again.") from error
        check_scores([(s.layer, value) for s in scores for value in (s.lara, s.trady)])
        if mine != costs:
            raise ArtefactError(
                "the ranking was made for another architecture or input size.", "Run `medyate rank` again."
            )
        return ranking


def check_scores(values: Sequence[tuple[str, float]], each: int = 2, least: float = 0.0) -> None:
    """Raises ArtefactError unless every layer has so many scores, numbers of at least `least`."""
    counts = Counter(layer for layer, _ in values)
    twice = next((layer for layer, count in counts.items() if count != each), None)
    if twice is not None:
        raise ArtefactError(f"the ranking is damaged: it has '{twice}' more than once.", "Run `medyate rank` again.")
    bad = next(((layer, value) for layer, value in values if not least <= value < math.inf), None)
    if bad is not None:
        raise ArtefactError(
            f"the ranking is damaged: '{bad[0]}' has the score {bad[1]:g}.", "Run `medyate rank` again."
        )


def covering(values: Sequence[float], share: float) -> int:
    """How many of the largest values hold a share of the sum: TraDy's K, arXiv 2510.19675, section D.5."""
    wanted, covered = share * sum(values), 0.0
    for count, value in enumerate(sorted(values, reverse=True), 1):
        covered += value
        if covered >= wanted:
            return count
    return len(values)


def channel_costs(graph: Graph) -> dict[str, tuple[int, ChannelCost]]:
    """(input channels, cost of one) of every layer that can be trained."""
    costs = {}
    for node in graph:
        cost = OPS[node.op].channel_cost
        if cost is not None:
            inputs = graph.input_shapes(node)
            costs[node.name] = (inputs[0][2], cost(node.attrs, inputs))
    return costs


def rank(graph: Graph, task: str, norms: Mapping[str, GradientNorms], made: Provenance | None = None) -> Ranking:
    """Orders the layers by LaRa; equal scores keep the network's order. Raises DataError for norms that are none."""
    scores = [
        LayerScore(
            name,
            norms[name].layer / (channels * cost.elements),
            norms[name].channels / cost.elements,
            channels,
            cost,
        )
        for name, (channels, cost) in channel_costs(graph).items()
    ]
    if not all(math.isfinite(value) for score in scores for value in (score.lara, score.trady)):
        raise DataError(
            "the gradients of the preliminary fine-tuning are no numbers.",
            "Check --pixels and the targets.",
        )
    return Ranking(graph.name, task, tuple(sorted(scores, key=lambda score: -score.lara)), made)
