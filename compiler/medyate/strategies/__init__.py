# SPDX-License-Identifier: Apache-2.0
"""Every selection method, by name: the one list."""

from __future__ import annotations

from medyate.errors import DataError
from medyate.strategies import su
from medyate.strategies.candidates import by_lara, by_trady, every
from medyate.strategies.problem import Problem
from medyate.strategies.selection import Selection, whole
from medyate.strategies.strategy import (
    DRAWN,
    GRADIENT,
    LARGEST,
    OBSERVED,
    RGN,
    START,
    Given,
    Neurons,
    Sampled,
    Strategy,
)

MEDYATE = "MeDyate, arXiv 2510.20979"
TRADY = "TraDy, arXiv 2510.19675"
MCUNET = "MCUNetV3, arXiv 2206.15472"
HOST, BOTH = ("host",), ("host", "device")
LARA, COVER = ("budget", "k", "alpha", "boost"), ("budget", "k", "coverage", "boost")


def last_layers(problem: Problem) -> Selection:
    """The last k layers with their biases; without a k, as many channels from the end as the budget holds."""
    if problem.settings.k is not None:
        return whole(problem.layers[-problem.settings.k :])
    channels, left = {}, problem.budget
    for layer in reversed(problem.layers):
        count = min(layer.channels, left // problem.cost.channel(layer.cost))
        if count:
            channels[layer.layer] = tuple(range(count))
        left -= count * problem.cost.channel(layer.cost)
        if count < layer.channels:
            break
    return Selection(channels, {}, frozenset(channels))


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "medyate",
            f"{MEDYATE}, section 3.4, algorithm 1",
            Sampled(by_lara, OBSERVED, DRAWN, redrawn=True),
            BOTH,
            "LaRa layers, drawn anew by the last norm seen",
            LARA,
        ),
        Strategy(
            "lara-trady",
            f"{MEDYATE}, section 4.3",
            Sampled(by_lara, START, DRAWN, redrawn=True),
            BOTH,
            "LaRa layers, drawn anew uniformly",
            LARA,
        ),
        Strategy(
            "trady",
            f"{TRADY}, table 1",
            Sampled(by_trady, START, DRAWN, redrawn=True),
            BOTH,
            "TraDy's layers, drawn anew uniformly",
            COVER,
        ),
        Strategy(
            "prev-medyate",
            f"{MEDYATE}, section 4.3",
            Sampled(by_trady, OBSERVED, DRAWN, redrawn=True),
            BOTH,
            "TraDy's layers, drawn anew by the last norm seen",
            COVER,
        ),
        Strategy(
            "det-rgn",
            f"{TRADY}, table 1; {MEDYATE}, section 4.3",
            Sampled(by_trady, RGN, LARGEST, redrawn=True),
            HOST,
            "TraDy's layers, the largest full-gradient norms per cost in each epoch",
            ("budget", "k", "coverage"),
        ),
        Strategy(
            "det-raw",
            f"{MEDYATE}, section 4.3",
            Sampled(by_lara, GRADIENT, LARGEST, redrawn=True),
            HOST,
            "LaRa layers, the largest full-gradient norms in each epoch",
            ("budget", "k", "alpha"),
        ),
        Strategy(
            "prob-raw",
            f"{MEDYATE}, section 4.3",
            Sampled(by_lara, GRADIENT, DRAWN, redrawn=True),
            HOST,
            "LaRa layers, drawn anew by the full gradient's norms",
            ("budget", "k", "alpha"),
        ),
        Strategy(
            "d-full-random",
            f"{TRADY}, table 1",
            Sampled(every, START, DRAWN, redrawn=True),
            BOTH,
            "all layers, drawn anew uniformly",
            ("budget", "boost"),
        ),
        Strategy(
            "s-full-random",
            f"{TRADY}, table 4",
            Sampled(every, START, DRAWN, redrawn=False),
            BOTH,
            "all layers, drawn once uniformly",
            ("budget", "boost"),
        ),
        Strategy(
            "s-topk-random",
            f"{TRADY}, table 4",
            Sampled(by_trady, START, DRAWN, redrawn=False),
            BOTH,
            "TraDy's layers, drawn once uniformly",
            COVER,
        ),
        Strategy(
            "s-det-rgn",
            f"{TRADY}, table 4",
            Sampled(by_trady, RGN, LARGEST, redrawn=False),
            HOST,
            "TraDy's layers, the largest full-gradient norms per cost at the start",
            ("budget", "k", "coverage"),
        ),
        Strategy(
            "su",
            f"{MCUNET}, sparse update",
            Given(su.select),
            BOTH,
            "a static scheme of layers, shares and biases",
            ("budget", "scheme"),
        ),
        Strategy(
            "velocity",
            "arXiv 2312.05282, neuron velocity",
            Neurons(),
            HOST,
            "neurons that are farthest from equilibrium, per weight",
            ("budget", "k", "alpha", "weights"),
        ),
        Strategy("head", f"{MCUNET}, last layer", Given(lambda _: Selection()), BOTH, "the classifier alone", ()),
        Strategy(
            "bias",
            f"{MCUNET}, bias only",
            Given(lambda problem: Selection(biases=frozenset(layer.layer for layer in problem.layers))),
            BOTH,
            "all biases",
            (),
        ),
        Strategy(
            "last-k", f"{MCUNET}, last k layers", Given(last_layers), BOTH, "the last layers whole", ("budget", "k")
        ),
        Strategy(
            "full", f"{TRADY}, table 1, baseline", Given(lambda p: whole(p.layers)), BOTH, "all weights and biases", ()
        ),
    )
}


def find_strategy(name: str) -> Strategy:
    """The strategy of a name. Raises DataError."""
    if name not in STRATEGIES:
        raise DataError(f"there is no strategy '{name}'.", f"It is one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]
