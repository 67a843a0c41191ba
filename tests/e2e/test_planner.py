# SPDX-License-Identifier: Apache-2.0
"""The planner on every shared network: near the lower bound, and quick."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from medyate import frontends
from medyate.ir import Imported, QGraph, Weights
from medyate.passes.pipeline import normalise, simplify
from medyate.plan.plan import classes_loss
from medyate.plan.schedule import make_schedule
from medyate.plan.steps import Pass, inference_pass, training_pass
from medyate.quantize.apply import quantize
from medyate.rank.lara import channel_costs
from shared_files import shared
from training_study import TASKS, Task, importable

RATIO = 1.05
SECONDS = 10.0
"""Of the processor: whatever else the machine does."""


def integers(imported: Imported) -> tuple[QGraph, Weights]:
    """The network's own integers, or those of noise: a plan asks for shapes only."""
    if imported.qgraph is not None:
        return imported.qgraph, imported.weights
    shape = imported.graph.shapes[imported.graph.input]
    noise = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    return quantize(imported.graph, imported.weights, noise)


def near(steps: Pass, schedule: str) -> None:
    start = time.process_time()
    _, layout = make_schedule(steps, schedule)
    assert layout.peak_bytes <= RATIO * layout.lower_bound_bytes
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("schedule", ["auto", "layer"])
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.model.replace(".", "-"))
def test_plans_are_near_the_lower_bound(task: Task, schedule: str, tmp_path: Path) -> None:
    imported = frontends.load(importable(shared(f"models/{task.model}"), tmp_path))
    near(inference_pass(*integers(simplify(imported))), schedule)
    normal = normalise(imported)
    quantised = normal.quantised or integers(Imported(normal.graph, normal.weights, None, ()))
    layers = [node.name for node in normal.graph if node.name in channel_costs(normal.graph)]
    for depth in sorted({1, len(layers) // 2, len(layers)} - {0}):
        near(training_pass(*quantised, dict.fromkeys(layers[-depth:], 4), classes_loss(10), 8), schedule)
