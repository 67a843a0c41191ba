# SPDX-License-Identifier: Apache-2.0
"""Which layers may be trained, and how many of them: one function for each rule of the papers.

By LaRa, K is the smallest number of layers with M_K >= budget / alpha (MeDyate, arXiv 2510.20979, eq. 10); by TraDy's
score, the smallest that holds 97 % of its sum (arXiv 2510.19675, section D.5). A given k overrules both.
"""

from __future__ import annotations

from collections.abc import Callable

from medyate.rank.lara import LayerScore, covering
from medyate.strategies.problem import Problem

Layers = tuple[LayerScore, ...]
Rule = Callable[[Problem], Layers]
"""The candidate layers in the network's order."""


def by_lara(problem: Problem) -> Layers:
    """The top K of LaRa whose search space is large enough for the budget."""
    ranked = tuple(sorted(problem.layers, key=lambda layer: -layer.lara))
    return problem.order(ranked[: problem.settings.k or lara_count(problem, ranked)])


def lara_count(problem: Problem, ranked: Layers) -> int:
    """The smallest K with budget / M_K <= alpha; all layers if there is none."""
    space = 0
    for count, layer in enumerate(ranked, 1):
        space += problem.cost.layer(layer)
        if space * problem.settings.alpha >= problem.budget:
            return count
    return len(ranked)


def by_trady(problem: Problem) -> Layers:
    """The top K of TraDy's score, which hold a share of its sum."""
    ranked = tuple(sorted(problem.layers, key=lambda layer: -layer.trady))
    count = covering([layer.trady for layer in ranked], problem.settings.coverage)
    return problem.order(ranked[: problem.settings.k or count])


def every(problem: Problem) -> Layers:
    """The whole network."""
    return problem.layers
