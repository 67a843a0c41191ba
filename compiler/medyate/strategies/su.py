# SPDX-License-Identifier: Apache-2.0
"""MCUNetV3's sparse update: a static choice of layers, shares of their channels, and biases of the last layers.

The fifteen schemes are those of tiny-training's `compilation/mcu_ir_gen.py`; a layer's number is its place among the
convolutions. Within a layer the input channels with the largest weights are trained. For other networks `search`
spends the budget greedily on measured contributions. Source: arXiv 2206.15472.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medyate import artefact
from medyate.errors import ArtefactError, BudgetError, DataError
from medyate.rank.lara import LayerScore
from medyate.strategies.problem import Problem
from medyate.strategies.selection import Selection

RATIOS = (1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class Scheme:
    """One sparse update."""

    name: str
    """The extra memory that its authors count, of int8 weights and maps, biases and masks."""
    biases: int
    """So many last convolutions train their biases."""
    ratios: Mapping[int, float]
    """Share of the input channels by number of the convolution."""
    elements: int
    """Weights and input maps at 128 x 128; the papers' budgets where they use the scheme."""


@dataclass(frozen=True)
class Network:
    """An architecture, known by its convolutions at any resolution."""

    name: str
    layers: int
    weights: int
    schemes: tuple[Scheme, ...]


def _ratios(text: str) -> dict[int, float]:
    return {int(index): float(ratio) for index, ratio in (part.split(":") for part in text.split())}


NETWORKS = (
    Network(
        "mbv2-w0.35",
        51,
        238_688,
        (
            # The papers print 27,946; the scheme as published takes 28,282 elements.
            Scheme("49kb", 16, _ratios("36:1 39:1 40:0 41:.25 42:.125 45:.125 48:.125 49:.125"), 27_946),
            Scheme("73kb", 20, _ratios("32:.125 33:.5 36:.5 39:1 41:.25 42:.125 45:.125 48:1"), 46_208),
            Scheme("99kb", 25, _ratios("27:1 30:1 33:1 36:1 39:1 42:.125 45:.5 48:1"), 66_592),
            Scheme("123kb", 31, _ratios("27:1 30:1 33:1 36:1 39:1 42:.5 45:1 48:1"), 83_840),
            Scheme("138kb", 34, _ratios("27:1 30:1 33:1 36:1 39:1 42:1 45:1 48:1"), 93_696),
        ),
    ),
    Network(
        "mcunet-5fps",
        42,
        463_216,
        (
            Scheme("49kb", 20, _ratios("23:0 24:.25 27:.5 30:.5 33:0 39:0"), 15_936),
            Scheme("74kb", 21, _ratios("21:1 23:0 24:1 26:0 27:.5 30:1"), 39_680),
            Scheme("99kb", 22, _ratios("21:1 24:1 27:1 30:1 36:.125 39:.25"), 64_832),
            Scheme("124kb", 24, _ratios("21:.25 24:1 27:1 30:1 33:.5 39:.5"), 86_720),
            Scheme("148kb", 23, _ratios("21:1 24:1 27:1 30:1 36:1 39:.5"), 112_640),
        ),
    ),
    Network(
        "proxyless-w0.3",
        60,
        320_816,
        (
            Scheme("49kb", 21, _ratios("39:.25 42:1 44:0 45:1 50:0 51:.125 54:.25 57:.25"), 25_984),
            Scheme("74kb", 28, _ratios("33:.5 36:.25 39:1 42:1 45:1 51:.5 54:.25 57:.5"), 44_992),
            Scheme("98kb", 25, _ratios("36:1 39:.5 42:1 45:1 48:.25 51:.5 54:1 57:1"), 72_960),
            Scheme("120kb", 32, _ratios("36:1 39:1 42:1 45:1 48:.5 51:1 54:1 57:1"), 88_576),
            Scheme("148kb", 45, _ratios("36:1 39:1 42:1 45:1 48:1 51:1 54:1 57:1"), 101_376),
        ),
    ),
)


def counts(scheme: Scheme, layers: tuple[LayerScore, ...]) -> dict[str, int]:
    """Trained input channels by layer."""
    return {layers[index].layer: int(ratio * layers[index].channels) for index, ratio in scheme.ratios.items()}


def known(layers: tuple[LayerScore, ...]) -> Network | None:
    """The network of the schemes that these layers are of."""
    weights = sum(layer.channels * layer.cost.weights for layer in layers)
    return next((n for n in NETWORKS if (n.layers, n.weights) == (len(layers), weights)), None)


def select(problem: Problem) -> Selection:
    """A stored scheme, the named or the largest published one within the budget, or one searched by gradients.

    Raises DataError for a scheme that the network does not have, BudgetError where no published one fits.
    """
    network, name = known(problem.layers), problem.settings.scheme
    if name is not None and name.endswith(".json"):
        return _selection(problem, stored(Path(name), problem.layers), problem.layers)
    if network is None and name is not None:
        raise DataError(
            f"no schemes are published for '{problem.graph.name}'.", "Make one with `medyate study scheme` and name it."
        )
    if network is None:
        return _selection(problem, search(problem, gradient_contributions(problem)), problem.layers)
    scheme = _named(network, name) if name is not None else _largest(network, problem)
    return _selection(problem, counts(scheme, problem.layers), problem.layers[-scheme.biases :])


def stored(path: Path, layers: tuple[LayerScore, ...]) -> dict[str, int]:
    """Channels by layer of a file of `medyate study scheme`. Raises ArtefactError when it is another network's."""
    chosen = artefact.read_json(path).get("channels")
    known_layers = {layer.layer: layer.channels for layer in layers}
    if not isinstance(chosen, dict) or not all(
        type(count) is int and 0 < count <= known_layers.get(name, 0) for name, count in chosen.items()
    ):
        raise ArtefactError(f"'{path}' is no scheme of this network.", "Make it with `medyate study scheme`.")
    return chosen


def _named(network: Network, name: str) -> Scheme:
    for scheme in network.schemes:
        if scheme.name == name:
            return scheme
    names = ", ".join(scheme.name for scheme in network.schemes)
    raise DataError(f"{network.name} has no scheme '{name}'.", f"It has {names}.")


def _largest(network: Network, problem: Problem) -> Scheme:
    """By what a scheme costs here; at the papers' own budget also the scheme that they use there."""
    layers = {layer.layer: layer for layer in problem.layers}

    def cost(scheme: Scheme) -> int:
        chosen = counts(scheme, problem.layers)
        here = sum(count * problem.cost.channel(layers[name].cost) for name, count in chosen.items())
        return problem.budget if scheme.elements == problem.budget else here

    fitting = [scheme for scheme in network.schemes if cost(scheme) <= problem.budget]
    if not fitting:
        least = min(map(cost, network.schemes))
        raise BudgetError(
            f"no scheme of {network.name} fits into {problem.budget:,} {problem.cost.unit}.",
            f"The smallest takes {least:,}; name one to train it anyway.",
        )
    return max(fitting, key=cost)


def _selection(problem: Problem, chosen: Mapping[str, int], biased: tuple[LayerScore, ...]) -> Selection:
    """The channels with the largest weights, so many of each layer."""
    channels = {}
    for layer in problem.layers:
        count = chosen.get(layer.layer, 0)
        if count:
            order = (-problem.magnitudes(layer)).argsort(kind="stable")[:count]
            channels[layer.layer] = tuple(sorted(int(c) for c in order))
    return Selection(channels, {}, frozenset(layer.layer for layer in biased))


Contributions = Mapping[tuple[str, float], float]
"""What training a share of a layer's channels is worth, by (layer, ratio)."""


def gradient_contributions(problem: Problem) -> dict[tuple[str, float], float]:
    """The first-order fall of the loss per step, ||gradient||^2, of a share of a layer: from the ranking."""
    norms = {layer.layer: layer.lara * layer.elements for layer in problem.layers}
    return {(name, ratio): ratio * norm**2 for name, norm in norms.items() for ratio in RATIOS}


def measured(problem: Problem, accuracy: Callable[[Selection], float]) -> dict[tuple[str, float], float]:
    """Accuracy that each share of each layer adds to training all biases alone; trains once for each."""
    biases = _selection(problem, {}, problem.layers)
    alone = accuracy(biases)
    return {
        (layer.layer, ratio): accuracy(_selection(problem, {layer.layer: count}, problem.layers)) - alone
        for layer in problem.layers
        for ratio in RATIOS
        if (count := int(ratio * layer.channels))
    }


def search(problem: Problem, contributions: Contributions) -> dict[str, int]:
    """Channels by layer: again and again the step to a larger share that is worth most per unit of cost."""
    layers = {layer.layer: layer for layer in problem.layers}
    chosen: dict[str, tuple[int, float]] = dict.fromkeys(layers, (0, 0.0))
    left = problem.budget
    while True:
        best, best_rate = None, 0.0
        for (name, ratio), worth in contributions.items():
            count = int(ratio * layers[name].channels)
            cost = (count - chosen[name][0]) * problem.cost.channel(layers[name].cost)
            if 0 < cost <= left and (worth - chosen[name][1]) / cost > best_rate:
                best, best_rate = (name, count, worth, cost), (worth - chosen[name][1]) / cost
        if best is None:
            return {name: count for name, (count, _) in chosen.items() if count}
        name, count, worth, cost = best
        chosen[name] = (count, worth)
        left -= cost
