# SPDX-License-Identifier: Apache-2.0
"""The one interface of all selection methods, and how one of them goes through the epochs.

A method that samples is four facts: which layers are candidates, what a channel is weighed by, whether channels are
drawn or the largest are taken, and whether that is done anew in every epoch. Drawing and observing are those of
sample/policy.py, the device's own. The others give a selection, or choose neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medyate.errors import BudgetError
from medyate.sample.policy import SKIP, draw_selection, observe
from medyate.strategies import candidates, velocity
from medyate.strategies.candidates import Layers
from medyate.strategies.problem import Problem
from medyate.strategies.selection import Channels, Selection, largest_that_fit

Norms = Mapping[str, NDArray[np.float64]]
"""One number per input channel, by layer."""

NORM_STEPS = 2.0**32
"""Norms become integers in steps of 2^-32."""

START, OBSERVED, GRADIENT, RGN = "start", "observed", "gradient", "rgn"
"""Weights of a channel: its start norm for ever; what its gradient's norm was when it was last trained; the norm of its
full gradient now; that divided by the channel's cost."""
DRAWN, LARGEST = "drawn", "largest"


class Evidence(Protocol):
    """What a trainer can be asked before an epoch."""

    def gradient_norms(self, layers: Layers) -> Norms:
        """||(dL/dW)_c||_2 of every channel under the present weights, which stay as they are."""

    def outputs(self) -> velocity.Outputs:
        """Every layer's outputs on fixed samples under the present weights."""


@dataclass(frozen=True)
class Sampled:
    """Input channels of candidate layers."""

    candidates: candidates.Rule
    weighed_by: str
    choice: str
    redrawn: bool


@dataclass(frozen=True)
class Given:
    """A selection that the problem alone decides."""

    selection: Callable[[Problem], Selection]


@dataclass(frozen=True)
class Neurons:
    """Output channels by velocity; random ones until velocities are known."""


@dataclass(frozen=True)
class Strategy:
    """One method of the papers."""

    name: str
    source: str
    rule: Sampled | Given | Neurons
    runs_on: tuple[str, ...]
    """device: its channels can be chosen there, without a full gradient."""
    says: str
    """In one line."""
    heeds: tuple[str, ...]
    """What changes it: 'budget', and settings by name."""


class Course:
    """A strategy on its way through the epochs of one training."""

    def __init__(self, strategy: Strategy, problem: Problem, seed: int, fit: str = SKIP) -> None:
        """`fit`: one of sample.policy.FITS. Raises BudgetError when the budget holds not one channel."""
        self.strategy, self.problem, self.seed, self.fit = strategy, problem, seed, fit
        self._kept: Selection | None = None
        self._equilibrium = velocity.Equilibrium()
        rule = strategy.rule
        if isinstance(rule, Sampled):
            self.layers = rule.candidates(problem)
            self.norms = start_norms(self.layers, problem)
            self.costs = [problem.cost.channel(s.cost) for s in self.layers for _ in range(s.channels)]
            if min(self.costs) > problem.budget:
                raise BudgetError(
                    f"a budget of {problem.budget:,} {problem.cost.unit} holds no channel.",
                    f"The cheapest candidate takes {min(self.costs):,}.",
                )

    def select(self, epoch: int, evidence: Evidence) -> Selection:
        """What the epoch trains, from 0; called once for each, in order."""
        rule = self.strategy.rule
        if isinstance(rule, Neurons):
            return self._neurons(epoch, evidence)
        if self._kept is not None:
            return self._kept
        if isinstance(rule, Given):
            self._kept = rule.selection(self.problem)
            return self._kept
        selection = Selection(split(self.layers, self._choose(rule, epoch, evidence)))
        if not rule.redrawn:
            self._kept = selection
        return selection

    def observe(self, epoch: int, selection: Selection, seen: Norms) -> None:
        """Takes the norms of the channels that the epoch trained, in the selection's order, by layer."""
        rule = self.strategy.rule
        if isinstance(rule, Sampled) and rule.weighed_by == OBSERVED:
            flat = np.concatenate([seen[layer.layer] for layer in self.layers if layer.layer in selection.channels])
            found = dict(zip(join(self.layers, selection.channels), integers(flat), strict=True))
            self.norms = observe(self.norms, found, first_epoch=epoch == 0)

    def _choose(self, rule: Sampled, epoch: int, evidence: Evidence) -> tuple[int, ...]:
        budget = self.problem.budget
        norms = self.norms
        if rule.weighed_by in (GRADIENT, RGN):
            found = evidence.gradient_norms(self.layers)
            flat = np.concatenate([found[layer.layer] for layer in self.layers])
            flat = flat / np.array(self.costs) if rule.weighed_by == RGN else flat
            if rule.choice == LARGEST:
                return largest_that_fit(flat, self.costs, budget)
            norms = integers(flat)
        return draw_selection(norms, self.costs, budget, self.seed, epoch, self.fit)

    def _neurons(self, epoch: int, evidence: Evidence) -> Selection:
        self._equilibrium.update(evidence.outputs())
        problem, layers = self.problem, self.problem.layers
        weights = velocity.neuron_weights(problem)
        costs = [weights[s.layer] for s in layers for _ in range(problem.outputs[s.layer])]
        budget, velocities = velocity.weight_budget(problem), self._equilibrium.velocity
        if velocities:
            rates = np.concatenate([np.abs(velocities[s.layer]) / weights[s.layer] for s in layers])
            chosen = largest_that_fit(rates, costs, budget)
        else:
            chosen = draw_selection([1] * len(costs), costs, budget, self.seed, epoch)
        counts = {layer.layer: problem.outputs[layer.layer] for layer in layers}
        return Selection({}, split_counts(counts, chosen))


def integers(norms: NDArray[np.float64]) -> list[int]:
    """Norms as the sampler takes them: whole numbers, at least 1."""
    return [max(1, min(int(norm), (1 << 63) - 1)) for norm in np.rint(np.nan_to_num(norms) * NORM_STEPS)]


def start_norms(layers: Layers, problem: Problem) -> list[int]:
    """Start norm of every channel of the candidate layers."""
    boost = problem.boost(layers)
    return [int(norm) for layer, norm in zip(layers, boost, strict=True) for _ in range(layer.channels)]


def split(layers: Layers, chosen: tuple[int, ...]) -> Channels:
    """Channels by layer from numbers that run through all layers."""
    return split_counts({layer.layer: layer.channels for layer in layers}, chosen)


def split_counts(counts: Mapping[str, int], chosen: tuple[int, ...]) -> Channels:
    """The same for parts of other numbers."""
    found, first, numbers = {}, 0, np.array(chosen, np.int64)
    for name, count in counts.items():
        own = numbers[(numbers >= first) & (numbers < first + count)] - first
        if len(own):
            found[name] = tuple(int(c) for c in own)
        first += count
    return found


def join(layers: Layers, channels: Channels) -> tuple[int, ...]:
    """Numbers that run through all layers from channels by layer."""
    found: list[int] = []
    first = 0
    for layer in layers:
        found += [first + channel for channel in channels.get(layer.layer, ())]
        first += layer.channels
    return tuple(found)
