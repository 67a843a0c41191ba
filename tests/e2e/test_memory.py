# SPDX-License-Identifier: Apache-2.0
"""How little memory does: inference arenas, and training within small totals by the rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medyate import frontends
from medyate.datasets import epoch_order, load
from medyate.plan.budget import Limits, choose
from medyate.plan.plan import classes_loss
from medyate.stages import Options, make_ranking, prepare, silent
from medyate.strategies import find_strategy
from medyate.strategies.device import on_device
from medyate.strategies.problem import Settings
from memory_study import ARENAS, POINTS, RANKED, Point, arena
from shared_files import shared, some_long

SAMPLES = 96


@pytest.mark.parametrize(("model", "limit"), ARENAS.items())
def test_inference_fits(model: str, limit: int) -> None:
    least, _ = arena(shared(f"models/{model}"))
    assert least <= limit


@pytest.mark.parametrize(
    "point", some_long(POINTS, lambda point: point.ram in ("116KiB", "180KiB")), ids=lambda p: f"{p.model}-{p.ram}"
)
def test_training_fits(point: Point) -> None:
    """With a short ranking on another task; the study makes a whole one, and runs the result."""
    dataset = load(str(shared(f"data/{RANKED}")))
    normal, qgraph, weights, dataset, meaning = prepare(
        frontends.load(shared(f"models/{point.model}")), dataset, "auto"
    )
    some = epoch_order(1, 0, len(dataset.x_train))[:SAMPLES]
    short = replace(dataset, x_train=dataset.x_train[some], y_train=dataset.y_train[some])
    ranking, _ = make_ranking(normal, short, meaning, Options("host", Limits(0), rank_epochs=1), silent)
    limits = Limits(int(point.ram[:-3]) << 10, min_elements=point.elements, recompute=point.recompute)
    if point.strategy:
        name, scheme = point.strategy[1], point.strategy[3].removeprefix("scheme=")
        network = (normal.graph, normal.weights)
        selecting = on_device(
            find_strategy(name), Settings(scheme=scheme), network, ranking, Limits(1, min_elements=point.elements), 0
        )
        limits = replace(limits, selecting=selecting)
    row, _ = choose(qgraph, weights, ranking, classes_loss(17), limits)
    assert row.b_mem_elements >= point.elements
