# SPDX-License-Identifier: Apache-2.0
"""Neurons by how far they are from equilibrium.

phi_t is the cosine between a neuron's outputs on some fixed samples after epochs t and t - 1, and
v_t = (phi_t - phi_{t-1}) - mu * v_{t-1}. Neurons with the largest |v| per weight are trained, within a budget of
weights; maps are not counted. Sources: NEq, arXiv 2207.09455; arXiv 2312.05282.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medyate.strategies import candidates
from medyate.strategies.problem import Problem

MU = 0.5
"""mu_eq, as in the code of arXiv 2312.05282."""

Outputs = Mapping[str, NDArray[np.float32]]
"""(values, neurons) of each layer: a neuron's outputs over all samples and pixels."""


class Equilibrium:
    """Velocities after every epoch."""

    def __init__(self) -> None:
        self._outputs: Outputs = {}
        self._phi: dict[str, NDArray[np.float64]] = {}
        self.velocity: dict[str, NDArray[np.float64]] = {}
        """Of every neuron, by layer; empty until two similarities are known."""

    def update(self, outputs: Outputs) -> None:
        """Takes the outputs of another epoch; the first call is before training."""
        unit = {name: values / np.maximum(np.linalg.norm(values, axis=0), 1e-12) for name, values in outputs.items()}
        phi = {name: (values * unit[name]).sum(0, dtype=np.float64) for name, values in self._outputs.items()}
        if self._phi:
            before = self.velocity
            self.velocity = {
                name: now - self._phi[name] - MU * before.get(name, np.zeros_like(now)) for name, now in phi.items()
            }
        self._outputs, self._phi = unit, phi


def neuron_weights(problem: Problem) -> dict[str, int]:
    """Weights of one neuron, by layer."""
    return {s.layer: s.channels * s.cost.weights // problem.outputs[s.layer] for s in problem.layers}


def weight_budget(problem: Problem) -> int:
    """The weights' part of the budget: a given number, or the weights' share of the LaRa candidates."""
    if problem.settings.weights is not None:
        return problem.settings.weights
    layers = candidates.by_lara(problem)
    weights = sum(layer.channels * layer.cost.weights for layer in layers)
    return problem.budget * weights // problem.cost.layers(layers)
