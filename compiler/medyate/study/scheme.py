# SPDX-License-Identifier: Apache-2.0
"""A sparse update for a network without published schemes: every share of every layer is trained once, for a while.

What a share is worth is the accuracy that it adds to training all biases alone; the budget is then spent greedily.
Source: MCUNetV3, arXiv 2206.15472, sparse update; there an evolutionary search spends the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medyate.errors import BudgetError
from medyate.rank.collect import GradientNorms
from medyate.rank.lara import rank
from medyate.strategies import su
from medyate.strategies.cost import CostModel
from medyate.strategies.problem import Problem
from medyate.strategies.selection import Selection
from medyate.strategies.strategy import Given, Strategy
from medyate.study.spec import Samples
from medyate.study.task import Task, load_task
from medyate.study.trainer import Recipe, Trainer, final_accuracy


def find(
    source: tuple[Path, str, int, str],
    allowed: tuple[int, CostModel],
    recipe: Recipe,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """The scheme as JSON: trained channels by layer, and what was measured.

    `source`: model, data, training samples (0: all), pixels; `allowed`: a budget and what it is counted in.
    Raises BudgetError when nothing that fits helps.
    """
    model, data_name, limit, pixels = source
    task = held_out(load_task(str(model), data_name, Samples(limit, 0, pixels, 0.25, resize=False)))
    graph = task.normal.graph
    none = {node.name: GradientNorms(0.0, 0.0) for node in graph}
    problem = Problem(graph, task.normal.weights, rank(graph, task.dataset.name, none), *allowed)
    total = 1 + sum(int(ratio * layer.channels) > 0 for layer in problem.layers for ratio in su.RATIOS)
    done = 0

    def accuracy(selection: Selection) -> float:
        nonlocal done
        given = Strategy("measured", "", Given(lambda _: selection), ("host",), "", ())
        epochs = Trainer(task.normal, task.samples, task.dataset, recipe).train(given, problem, lambda _: None)
        done += 1
        progress(done, total)
        return final_accuracy(epochs)

    worth = su.measured(problem, accuracy)
    chosen = su.search(problem, worth)
    if not chosen:
        raise BudgetError("no layer that fits the budget adds to its biases.", "Give more epochs, or a larger budget.")
    return {
        "network": problem.graph.name,
        "task": task.dataset.name,
        "budget": problem.budget,
        "cost": problem.cost.name,
        "channels": chosen,
        "contributions": [{"layer": name, "ratio": ratio, "accuracy": value} for (name, ratio), value in worth.items()],
    }


def held_out(task: Task) -> Task:
    """The training part alone, every fourth sample of it to measure on: the test part stays unseen."""
    x, y, real = task.dataset.x_train, task.dataset.y_train, task.samples["train"]
    test = np.arange(len(y)) % 4 == 0
    dataset = replace(task.dataset, x_train=x[~test], y_train=y[~test], x_test=x[test], y_test=y[test])
    return Task(task.normal, dataset, {"train": real[~test], "test": real[test]})
