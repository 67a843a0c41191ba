# SPDX-License-Identifier: Apache-2.0
"""A cell of the device engine: compiled within a budget or a total RAM, and trained by the integer host twin."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medyate import artefact, frontends
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.stages import Options, compile_model
from medyate.strategies import find_strategy
from medyate.strategies.cost import DEVICE
from medyate.strategies.device import says_itself
from medyate.strategies.problem import Settings
from medyate.study.spec import Cell
from medyate.study.task import load_data

PLENTY = 1 << 28
"""Bytes of RAM where only what is trained is counted."""
LITTLE = 1 << 12
"""A budget where nothing is trained but the head."""


def train(cell: Cell, ranking: Mapping[str, Any]) -> dict[str, Any]:
    """Compiles and trains it. Raises MedyateError, BudgetError with the RAM that is needed."""
    fixed, settings = cell.facts, Settings(**dict(cell.settings))
    graph = frontends.load(Path(cell.network)).graph
    dataset = load_data(cell.data, fixed.samples, graph.shapes[graph.input])
    head_only = cell.strategy == "head"
    whole = not head_only and says_itself(find_strategy(cell.strategy), settings)
    counted = Limits(PLENTY, budget_bytes=0 if whole else cell.budget or LITTLE)
    limits = counted if fixed.cost == DEVICE.name else Limits(cell.budget)
    most = 0 if head_only else fixed.step_instructions
    options = Options(
        "host",
        replace(limits, alpha=settings.alpha, step_instructions=most, batch=fixed.batch),
        fixed.pixels,
        seed=cell.seed,
        split=fixed.split,
        strategy="medyate" if head_only else cell.strategy,
        settings=settings,
    )
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        folder = Path(name)
        artefact.write_json(folder / "ranking.json", ranking)
        options = replace(options, ranking=folder / "ranking.json")
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
        chosen = RunOptions(
            "host", training, folder / "flash.bin", evaluate_each=fixed.evaluate_each, measure=False, count=False
        )
        log = run(compiled, dataset, chosen, lambda _: None)
    result = {
        "network": log["network"],
        "data": log["data"],
        "accuracy": log["accuracy_after"],
        "accuracies": [epoch.get("accuracy") for epoch in log["history"]],
        "losses": [epoch["loss"] for epoch in log["history"]],
        "digest": log["digest"],
        "k": 0,
    }
    if head_only:  # what it was compiled for takes more than it trains
        return result
    return {
        **result,
        "k": log["candidate_layers"],
        "b_mem_bytes": log["b_mem_bytes"],
        "b_mem_elements": log["b_mem_elements"],
        "arena_bytes": log["arena_planned_bytes"],
        "ram_bytes": compiled.plan["arena_bytes"] + limits.reserved_bytes,
        "step_instructions": compiled.plan["step_instructions_bound"],
    }
