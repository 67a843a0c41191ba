# SPDX-License-Identifier: Apache-2.0
"""The estimate of a step's instructions bounds what an emulated Cortex-M7 counts, and the planner keeps to a limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import DIGITNET, Cli
from medyate import datasets, ledger
from medyate.errors import BudgetError, DataError
from medyate.plan.budget import Limits, measure
from medyate.plan.instructions import Effort
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import Material, Options, compile_model, gather, silent
from medyate.strategies.problem import Settings

SLACK = 1.35
"""The network is none of those that the estimate was fitted to."""
RAM = 64 << 10


@pytest.fixture(scope="module")
def material(small_digits: Path) -> Material:
    return gather(DIGITNET, datasets.load(str(small_digits)), Options("host", Limits(0), rank_epochs=1), silent)


@pytest.fixture(scope="module")
def effort(material: Material) -> Effort:
    return Effort(material.qgraph.graph, 10)


@pytest.mark.parametrize("kernels", ["ref", "dsp"])
@pytest.mark.parametrize(
    ("budget", "bits", "batch"), [(1500, 8, 1), (12000, 8, 1), (12000, 16, 1), (12000, 8, 4), (0, 8, 1)]
)
def test_measured_steps_are_within_the_estimate(
    budget: int, bits: int, batch: int, kernels: str, small_digits: Path, tmp_path: Path
) -> None:
    """It is close to what portable kernels take where no memory is left for them; no family takes more with some."""
    dataset = datasets.load(str(small_digits))
    limits = Limits(RAM if budget else 4 * RAM, budget_bytes=budget, grad_bits=bits, batch=batch)
    strategy = "medyate" if budget else "full"
    options = Options("qemu-m7", limits, rank_epochs=1, builder="make", strategy=strategy, kernels=kernels)
    plan, _ = compile_model(DIGITNET, dataset, options, tmp_path / "out")
    if kernels == "ref":
        assert plan.row is not None
        arena = ledger.arena_bytes(plan.row.planned_bytes, plan.epoch_bytes, plan.state.bytes)
        exact = replace(options, limits=replace(limits, ram_bytes=arena + limits.reserved_bytes))
        plan, _ = compile_model(DIGITNET, dataset, exact, tmp_path / "out")
        assert plan.layout.extra_bytes == 0
    compiled = Compiled.read(tmp_path / "out")
    effort = Effort(plan.qgraph.graph, 10, bits, batch, plan.limits.selecting.biases)
    samples, _ = int8_samples(compiled, dataset)
    taken = {}
    with connect(compiled, "qemu", tmp_path / "flash.bin") as session:
        for kind in ("head", "drawn", "most"):
            session.begin(Training(0.01, 1, 20, "constant", head_only=kind == "head"))
            if kind == "most":
                session.force([c.worst for c in plan.candidates])
            steps = [session.train(samples[12 * i % 120], int(dataset.y_train[12 * i % 120])) for i in range(8)]
            taken[kind] = max(step.instructions for step in steps)
    assert plan.row is not None
    assert taken["head"] <= effort.base_instructions
    assert max(taken["drawn"], taken["most"]) <= plan.row.step_instructions
    if kernels == "ref":
        assert effort.base_instructions <= SLACK * taken["head"]
        assert plan.row.step_instructions <= SLACK * taken["most"]


def test_the_budget_of_a_limit_is_the_largest(material: Material, effort: Effort) -> None:
    random = np.random.default_rng(2)
    for _ in range(50):
        count = int(random.integers(1, len(material.ranking.scores) + 1))
        scores = material.ranking.scores[:count]
        least, most = effort.step(scores, 0), effort.step(scores, 1 << 30)
        limit = int(random.integers(least, most + 1))
        budget = effort.budget(scores, limit)
        assert effort.step(scores, budget) <= limit + 1
        assert budget + 8 > sum(s.bytes for s in scores) or effort.step(scores, budget + 8) >= limit
        repeated = [node.name for node in material.qgraph.graph][:5]
        assert effort.step(scores, budget, repeated) > effort.step(scores, budget)
        assert effort.budget(scores, limit, repeated) <= budget


def test_plans_keep_to_the_limit(material: Material, small_digits: Path) -> None:
    dataset = datasets.load(str(small_digits))
    free = material.plan(Limits(RAM)).row
    assert free is not None
    budgets = []
    for share in (1.0, 0.9, 0.8):
        limit = round(share * free.step_instructions)
        options = Options("host", Limits(RAM, step_instructions=limit), rank_epochs=1)
        row = gather(DIGITNET, dataset, options, silent).plan(options.limits).row
        assert row is not None
        assert row.step_instructions <= limit
        budgets.append(row.b_mem_bytes)
    assert 0 <= free.b_mem_bytes - budgets[0] <= 8  # rounded down
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[-1] > 0


def test_of_all_numbers_of_layers_the_one_with_the_largest_budget_is_taken(small_digits: Path) -> None:
    dataset = datasets.load(str(small_digits))
    for share in (1.1, 1.4):
        free = gather(DIGITNET, dataset, Options("host", Limits(0), rank_epochs=1), silent)
        limit = round(share * Effort(free.qgraph.graph, 10).base_instructions)
        limits = Limits(RAM, step_instructions=limit)
        made = gather(DIGITNET, dataset, Options("host", limits, rank_epochs=1), silent)
        row = made.plan(limits).row
        assert row is not None
        scores = made.trainable.scores
        rows = [measure(made.network(), scores[:k], limits, row.way) for k in range(1, len(scores) + 1)]
        assert row.b_mem_bytes == max(other.b_mem_bytes for other in rows)


def test_a_limit_that_no_layer_meets_is_refused(effort: Effort, small_digits: Path, run_cli: Cli) -> None:
    limit = effort.base_instructions
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--max-step-instructions", limit)
    assert ended.code == 2
    assert f"{limit:,} with the head alone" in ended.err


def test_a_given_selection_is_not_cut_short(effort: Effort, material: Material, small_digits: Path) -> None:
    limit = round(1.05 * effort.base_instructions)
    limits = Limits(RAM, step_instructions=limit)
    options = Options("host", limits, rank_epochs=1, strategy="last-k", settings=Settings(k=9))
    with pytest.raises((BudgetError, DataError), match="max-step-instructions"):
        gather(DIGITNET, datasets.load(str(small_digits)), options, silent).plan(limits)
