# SPDX-License-Identifier: Apache-2.0
"""What the device needs of a strategy: candidate layers, start norms, and a policy of selection."""

from __future__ import annotations

from medyate.errors import BudgetError
from medyate.plan.selecting import Selecting
from medyate.strategies.candidates import Layers
from medyate.strategies.problem import Problem
from medyate.strategies.strategy import OBSERVED, Course, Norms, Sampled, Strategy
from medyate.strategies.velocity import Outputs


def device_form(strategy: Strategy, problem: Problem, seed: int) -> tuple[Layers, Selecting]:
    """Candidate layers in the network's order, and how their channels are selected.

    Of a sparse update the device trains the channels; its biases stay. Raises BudgetError for a strategy of the host.
    """
    if "device" not in strategy.runs_on:
        raise BudgetError(f"'{strategy.name}' needs what only the host has.", "Study it with the float engine.")
    rule, course = strategy.rule, Course(strategy, problem, seed)
    if isinstance(rule, Sampled) and rule.redrawn:
        boost = zip(course.layers, problem.boost(course.layers), strict=True)
        start = {layer.layer: (int(norm),) * layer.channels for layer, norm in boost}
        return course.layers, Selecting("proportional" if rule.weighed_by == OBSERVED else "uniform", start=start)
    channels = course.select(0, NoEvidence()).channels
    return tuple(layer for layer in problem.layers if layer.layer in channels), Selecting("fixed", channels)


class NoEvidence:
    """For strategies that need none."""

    def gradient_norms(self, layers: Layers) -> Norms:
        """Never asked."""
        raise AssertionError(layers)

    def outputs(self) -> Outputs:
        """Never asked."""
        raise AssertionError
