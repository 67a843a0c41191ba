# SPDX-License-Identifier: Apache-2.0
"""What the device needs of a strategy: candidate layers, start norms, and a policy of selection."""

from __future__ import annotations

from medyate.errors import BudgetError, DataError
from medyate.ir import Graph, Weights
from medyate.plan.budget import Limits
from medyate.plan.selecting import Selecting
from medyate.rank.lara import Ranking
from medyate.strategies.candidates import Layers, by_lara
from medyate.strategies.cost import DEVICE, PAPER
from medyate.strategies.problem import Problem, Settings
from medyate.strategies.strategy import OBSERVED, Course, Norms, Sampled, Strategy
from medyate.strategies.velocity import Outputs

HEAD_ALONE = Selecting("fixed")
UNBOUNDED = 1 << 30
"""Where the memory decides."""


def on_device(
    strategy: Strategy, settings: Settings, network: tuple[Graph, Weights], ranking: Ranking, limits: Limits, seed: int
) -> Selecting:
    """How the device selects under a strategy.

    A selection that is made here fits the limits' budget in bytes or, without one, their smallest number of elements.
    LaRa's layers are as many as the memory asks for, unless a k is given. Raises DataError and BudgetError.
    """
    if not ranking.scores:  # whatever the strategy, there is nothing but the head
        if limits.min_elements:
            raise DataError(f"'{network[0].name}' has no layer to train but its last.", "Leave out --min-elements.")
        return HEAD_ALONE
    rule = strategy.rule
    redrawn = isinstance(rule, Sampled) and rule.redrawn
    by_memory = isinstance(rule, Sampled) and rule.candidates is by_lara and settings.k is None
    if by_memory and settings.boost == "rank":
        raise DataError("a boost by rank needs the number of layers.", "Give a k with it: --set k=N.")
    cost, asked = (DEVICE, limits.budget_bytes) if limits.budget_bytes else (PAPER, limits.min_elements)
    whole = says_itself(strategy, settings)
    if whole and asked > 0:
        which = "a scheme" if settings.scheme is not None else "a number of last layers"
        which = which if "budget" in strategy.heeds else f"'{strategy.name}'"
        raise DataError(f"{which} already says how much is trained.", "Leave out --budget and --min-elements.")
    budget = UNBOUNDED if redrawn or whole or "budget" not in strategy.heeds else asked
    if budget == 0:
        own = [f"--set {name}=..." for name in ("k", "scheme") if name in strategy.heeds and not redrawn]
        raise DataError(
            f"'{strategy.name}' needs a size, since it selects before the plan is made.",
            f"Say how much with {' or '.join(['--budget', '--min-elements', *own])}.",
        )
    priced = ranking.trained_by(limits.optimizer, limits.batch)
    layers, selecting = device_form(strategy, Problem(*network, priced, budget, cost, settings), seed)
    start = {} if settings.boost == "none" else selecting.start
    names = () if by_memory or selecting.fixed else tuple(layer.layer for layer in layers)
    return Selecting(selecting.policy, selecting.channels, names, start, selecting.biases)


def says_itself(strategy: Strategy, settings: Settings) -> bool:
    """Whether a selection that is given leaves nothing to a budget."""
    given = settings.scheme is not None or settings.k is not None or "budget" not in strategy.heeds
    return given and not isinstance(strategy.rule, Sampled)


def device_form(strategy: Strategy, problem: Problem, seed: int) -> tuple[Layers, Selecting]:
    """Candidate layers in the network's order, and how their channels are selected.

    Raises BudgetError for a strategy of the host.
    """
    if "device" not in strategy.runs_on:
        raise BudgetError(f"'{strategy.name}' does not run on the device.", "Study it with the float engine.")
    rule, course = strategy.rule, Course(strategy, problem, seed)
    if isinstance(rule, Sampled) and rule.redrawn:
        boost = zip(course.layers, problem.boost(course.layers), strict=True)
        start = {layer.layer: (int(norm),) * layer.channels for layer, norm in boost}
        return course.layers, Selecting("proportional" if rule.weighed_by == OBSERVED else "uniform", start=start)
    selection = course.select(0, NoEvidence())
    layers = tuple(layer for layer in problem.layers if layer.layer in selection.channels)
    biases = tuple(layer.layer for layer in problem.layers if layer.layer in selection.biases)
    return layers, Selecting("fixed", selection.channels, biases=biases)


class NoEvidence:
    """For strategies that need none."""

    def gradient_norms(self, layers: Layers) -> Norms:
        """Never asked."""
        raise AssertionError(layers)

    def outputs(self) -> Outputs:
        """Never asked."""
        raise AssertionError
