# SPDX-License-Identifier: Apache-2.0
"""A cell of the device engine: compiled within a total RAM and trained by the integer host twin."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from medyate import frontends
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.stages import Options, compile_model
from medyate.strategies.problem import Settings
from medyate.study.job import load_data
from medyate.study.spec import Cell


def train(cell: Cell) -> dict[str, Any]:
    """Compiles and trains it. Raises MedyateError, BudgetError with the RAM that is needed."""
    fixed, settings = cell.facts, Settings(**dict(cell.settings))
    graph = frontends.load(Path(cell.network)).graph
    dataset = load_data(cell.data, fixed.samples, graph.shapes[graph.input])
    head_only = cell.strategy == "head"
    options = Options(
        "host",
        Limits(cell.budget, alpha=settings.alpha),
        fixed.pixels,
        rank_epochs=fixed.rank_epochs,
        seed=fixed.rank_seed,
        split=fixed.split,
        strategy="medyate" if head_only else cell.strategy,
        settings=settings,
    )
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        folder = Path(name)
        compile_model(Path(cell.network), dataset, options, folder / "out")
        compiled = Compiled.read(folder / "out")
        training = Training(
            cell.rate,
            fixed.epochs,
            len(dataset.x_train),
            "cosine",
            float(fixed.warmup),
            cell.seed,
            head_only,
            fixed.flip,
            clip=fixed.clip,
        )
        chosen = RunOptions("host", training, folder / "flash.bin", measure=False, count=False)
        log = run(compiled, dataset, chosen, lambda _: None)
    return {
        "network": log["network"],
        "data": log["data"],
        "accuracy": log["accuracy_after"],
        "accuracies": [epoch["accuracy"] for epoch in log["history"]],
        "losses": [epoch["loss"] for epoch in log["history"]],
        "k": 0 if head_only else log["candidate_layers"],
        "b_mem_bytes": log["b_mem_bytes"],
        "b_mem_elements": log["b_mem_elements"],
        "arena_bytes": log["arena_planned_bytes"],
        "digest": log["digest"],
    }
