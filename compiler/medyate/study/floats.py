# SPDX-License-Identifier: Apache-2.0
"""A cell of the float engine, and what is kept of it."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from medyate.optimizer import SGD
from medyate.rank.lara import Ranking
from medyate.strategies import find_strategy
from medyate.strategies.cost import cost_model
from medyate.strategies.problem import Problem, Settings
from medyate.strategies.selection import layer_macs
from medyate.strategies.strategy import Sampled
from medyate.study.spec import Cell
from medyate.study.task import Task
from medyate.study.trainer import Recipe, Trainer, final_accuracy


def train(cell: Cell, task: Task, ranking: Ranking) -> dict[str, Any]:
    """Trains it. Raises MedyateError where its facts do not fit together."""
    fixed, chosen = cell.facts, find_strategy(cell.strategy)
    settings = Settings(**dict(cell.settings))
    graph = task.normal.graph
    priced = ranking.trained_by(SGD, fixed.batch)
    problem = Problem(graph, task.normal.weights, priced, cell.budget, cost_model(fixed.cost), settings)
    shared = {name: getattr(fixed, name) for name in (field.name for field in fields(Recipe)) if hasattr(fixed, name)}
    recipe = Recipe(rate=cell.rate, seed=cell.seed, **shared)
    epochs = Trainer(task.normal, task.samples, task.dataset, recipe).train(chosen, problem, lambda _: None)
    candidates = chosen.rule.candidates(problem) if isinstance(chosen.rule, Sampled) else ()
    macs = layer_macs(graph)
    return {
        "network": graph.name,
        "data": task.dataset.name,
        "accuracy": final_accuracy(epochs),
        "accuracies": [epoch.accuracy for epoch in epochs],
        "losses": [epoch.loss if math.isfinite(epoch.loss) else None for epoch in epochs],
        "weights": [epoch.footprint.weights for epoch in epochs],
        "activations": [epoch.footprint.activations for epoch in epochs],
        "macs": [epoch.footprint.macs for epoch in epochs],
        "deepest": [epoch.deepest for epoch in epochs],
        "p": [epoch.p for epoch in epochs],
        "k": len(candidates),
        "m_elements": sum(layer.elements for layer in candidates),
        "total_weights": sum(layer.channels * layer.cost.weights for layer in problem.layers),
        "total_activations": sum(layer.channels * layer.cost.activations for layer in problem.layers),
        "total_macs": sum(macs[layer.layer] for layer in problem.layers),
    }
