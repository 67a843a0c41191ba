# SPDX-License-Identifier: Apache-2.0
"""What the compiler decides about the selection of channels, and what it leaves to the device's epochs.

proportional   drawn by norms that every epoch observes anew: MeDyate, arXiv 2510.20979
uniform        drawn by norms that stay as they start: TraDy, arXiv 2510.19675
fixed          the same channels in every epoch: MCUNetV3's sparse update, arXiv 2206.15472
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medyate.errors import GraphError
from medyate.rank.lara import LayerScore, Ranking

POLICIES = ("proportional", "uniform", "fixed")
"""In the order of the runtime's MDY_PROPORTIONAL, MDY_UNIFORM, MDY_FIXED."""


@dataclass(frozen=True, eq=False)
class Selecting:
    """How channels are selected."""

    policy: str = "proportional"
    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of a fixed selection: channels by layer, ascending; these layers are the candidates."""
    layers: tuple[str, ...] = ()
    """The candidate layers, where not the memory decides how many of a ranking they are."""
    start: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """First norms by layer, below 2^32 and kept in 16 bits; 1 where none are given."""
    biases: tuple[str, ...] = ()
    """Layers whose biases are trained, all of them in every step."""

    @property
    def fixed(self) -> bool:
        """Whether nothing is drawn."""
        return self.policy == "fixed"

    @property
    def given(self) -> bool:
        """Whether the candidate layers are."""
        return self.fixed or bool(self.layers)

    @property
    def said(self) -> tuple[dict[str, list[int]], ...]:
        """What is given beside the policy, for the model's digest."""
        return tuple({layer: list(v) for layer, v in given.items()} for given in (self.channels, self.start) if given)

    def norms(self, channels: int) -> int:
        """How many norms the device keeps."""
        return channels if self.policy == "proportional" else 0

    def candidates(self, ranking: Ranking) -> tuple[LayerScore, ...]:
        """The layers among which K is chosen. Raises GraphError when a fixed one does not exist."""
        known = {score.layer: score for score in ranking.scores}
        if not self.fixed:
            return tuple(known[layer] for layer in self.layers) if self.layers else ranking.scores
        for layer, channels in self.channels.items():
            if layer not in known:
                raise GraphError(f"no layer '{layer}' can be trained.", "`medyate inspect` lists the layers.")
            count = known[layer].channels
            if not channels or min(channels) < 0 or max(channels) >= count or len(set(channels)) < len(channels):
                raise GraphError(
                    f"the channels of '{layer}' are not some of its {count}.", "Give each once, counted from 0."
                )
        return tuple(score for score in ranking.scores if score.layer in self.channels)

    def most_bytes(self, scores: Sequence[LayerScore], alpha: float) -> int:
        """The largest budget: a share of the candidates, but a channel at least; all of given ones; what is fixed."""
        if self.fixed:
            return sum(len(self.channels[score.layer]) * score.cost.record_bytes for score in scores)
        if self.layers:
            return sum(score.bytes for score in scores)
        share = int(alpha * sum(score.bytes for score in scores)) // 4 * 4
        return max(share, *(score.cost.record_bytes for score in scores))

    def least_bytes(self, scores: Sequence[LayerScore], alpha: float) -> int:
        """The smallest budget that trains anything, or what is fixed."""
        if self.fixed:
            return self.most_bytes(scores, alpha)
        return min(score.cost.record_bytes for score in scores)

    def elements(self, scores: Sequence[LayerScore], budget: int) -> int:
        """A budget in the papers' elements: of the mean channel, or of those that are fixed."""
        if self.fixed:
            return sum(len(self.channels[score.layer]) * score.cost.elements for score in scores)
        return budget * sum(score.elements for score in scores) // sum(score.bytes for score in scores)

    def records(self, score: LayerScore, budget: int) -> int:
        """Channels of a layer that one selection may hold."""
        return len(self.channels[score.layer]) if self.fixed else min(score.channels, budget // score.cost.record_bytes)

    def worst(self, scores: Sequence[LayerScore], budget: int) -> tuple[tuple[int, ...], int]:
        """Channels per layer in the selection that takes most bytes, and the bytes: the epoch region's size."""
        if self.fixed:
            return tuple(len(self.channels[score.layer]) for score in scores), budget
        return fullest(scores, budget)

    def eligible(self, layer: str, alive: Sequence[bool]) -> tuple[bool, ...]:
        """Which channels may be selected; `alive`: those whose weights can change."""
        if not self.fixed:
            return tuple(bool(one) for one in alive)
        chosen = set(self.channels[layer])
        return tuple(channel in chosen for channel in range(len(alive)))


DRAWN = Selecting()
"""MeDyate's: proportional, nothing given."""


def fullest(scores: Sequence[LayerScore], budget: int) -> tuple[tuple[int, ...], int]:
    """Channels per layer that fill the budget most, and the bytes they take.

    A subset-sum over the record sizes (all multiples of 4), bounded by each layer's channels.
    """
    units = max(0, budget // 4)
    reach = [np.zeros(units + 1, bool)]
    reach[0][0] = True
    for score in scores:
        size = score.cost.record_bytes // 4
        used = np.full(units + 1, np.iinfo(np.int64).max)
        used[reach[-1]] = 0
        for total in range(size, units + 1):
            before = used[total - size]
            if used[total] != 0 and before < score.channels:
                used[total] = before + 1
        reach.append(used <= score.channels)
    total = int(np.flatnonzero(reach[-1])[-1])
    best = 4 * total
    counts: list[int] = []
    for index in range(len(scores) - 1, -1, -1):
        size = scores[index].cost.record_bytes // 4
        count = 0
        while not reach[index][total]:
            total -= size
            count += 1
        counts.append(count)
    return tuple(reversed(counts)), best
