# SPDX-License-Identifier: Apache-2.0
"""Fits the weights of plan/instructions.py to steps measured on an emulated Cortex-M7, and says how close they are.

    python tools/instruction_study.py SHARED [--steps FILE] [--only NAME ...]

Every network is compiled with several budgets. Three kinds of steps are measured: of the head alone, with one channel
of one layer, and with the plan's largest selection. The weights are the smallest upper envelope, so that none of these
steps takes more than is said. `--steps` keeps what was measured, one JSON object a line, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linprog

from medyate.errors import BudgetError
from medyate.plan.budget import Limits
from medyate.plan.instructions import WEIGHTS, Effort
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import Options, compile_model
from training_study import TASKS, Task, importable

MODELS = ("ic_resnet8_cifar10_int8", "kws_dscnn_int8", "vww_mobilenetv1_025_96_int8", "person_detect", "mbv2-w0.35.pkl")
MODELS += ("mcunet-5fps.pkl", "resnet20", "micro_speech", "derived/mbv2")
BUDGETS = (1000, 4000, 40000)
"""Bytes of what is trained."""
RAM = 1 << 21
WARM, MEASURED = 2, 4
"""Steps; the first ones have a head of zeros, whose gradients are zeros."""


def measured(task: Task, shared: Path, budget: int) -> list[dict[str, Any]]:
    """(model, budget, kind, work, most instructions) of each kind of step."""
    dataset = task.dataset(shared)
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        folder = Path(name)
        limits = Limits(RAM, budget_bytes=budget)
        options = Options("qemu-m7", limits, task.pixels, head=task.head, rank_epochs=1, builder="make")
        plan, _ = compile_model(importable(shared / "models" / task.model, folder), dataset, options, folder / "out")
        compiled = Compiled.read(folder / "out")
        samples, _ = int8_samples(compiled, dataset)
        effort = Effort(plan.qgraph.graph, int(compiled.model["outputs"]))
        layers = [c.layer for c in plan.candidates]
        worst = dict(zip(layers, (c.worst for c in plan.candidates), strict=True))
        kinds = {"head": {}, "one": {layers[0]: 1}, "most": worst}
        found = []
        with connect(compiled, "qemu", folder / "flash.bin") as session:
            for kind, chosen in kinds.items():
                session.begin(Training(0.01, 1, 100, "constant", head_only=not chosen))
                if chosen:
                    session.force([chosen.get(layer, 0) for layer in layers])
                steps = [session.train(samples[i], int(dataset.y_train[i])) for i in range(WARM + MEASURED)]
                work = effort.base() + effort.selected(chosen)
                trained = [layer for layer, count in chosen.items() if count]
                if trained:
                    work += effort.chain(min(trained, key=lambda layer: effort.places[layer]))
                most = max(step.instructions for step in steps[WARM:])
                facts = {"model": task.model, "budget": budget, "kind": kind}
                found.append({**facts, "work": dict(work), "instructions": most})
    return found


def envelope(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The weights with which every row is bounded and the mean ratio is smallest."""
    kinds = sorted({kind for row in rows for kind in row["work"]})
    taken = np.array([row["instructions"] for row in rows], float)
    share = np.array([[row["work"].get(kind, 0) for kind in kinds] for row in rows]) / taken[:, None]
    scale = share.max(axis=0)
    solved = linprog((share / scale).sum(axis=0), A_ub=-share / scale, b_ub=-np.ones(len(rows)), method="highs")
    return dict(zip(kinds, solved.x / scale, strict=True))


def main() -> None:
    """Measures what is missing, prints the weights and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--steps", type=Path, default=Path("build/instructions.jsonl"))
    parser.add_argument("--only", nargs="*", default=MODELS)
    options = parser.parse_args()
    options.steps.parent.mkdir(parents=True, exist_ok=True)
    lines = options.steps.read_text().splitlines() if options.steps.exists() else []
    rows = [json.loads(line) for line in lines]
    known = {(row["model"], row["budget"]) for row in rows}
    for task in TASKS:
        if not any(word in task.model for word in options.only):
            continue
        for budget in BUDGETS:
            if (task.model, budget) in known:
                continue
            try:
                found = measured(task, options.shared, budget)
            except BudgetError:  # holds no channel of this network
                continue
            rows += found
            with options.steps.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
    weights = envelope(rows)
    print("WEIGHTS: Mapping[str, float] = {")
    for kind, weight in weights.items():
        print(f'    "{kind}": {weight:.3g},')
    print("}\n\n| model | budget | step | instructions | bound by these / measured | by those in use |")
    print("| --- | --: | --- | --: | --: | --: |")
    for row in rows:
        bounds = [sum(w.get(kind, 0.0) * amount for kind, amount in row["work"].items()) for w in (weights, WEIGHTS)]
        ratios = " | ".join(f"{bound / row['instructions']:.3f}" for bound in bounds)
        print(f"| {row['model']} | {row['budget']:,} | {row['kind']} | {row['instructions']:,} | {ratios} |")


if __name__ == "__main__":
    main()
