# SPDX-License-Identifier: Apache-2.0
"""Fits the weights of plan/instructions.py to steps measured on an emulated Cortex-M7, and says how close they are.

    python tools/instruction_study.py SHARED [--steps FILE] [--only NAME ...]

Every network is compiled with several budgets. Four kinds of steps are measured: of the head alone, with one channel
of one layer, with the plan's largest selection, and with all that it may select of the last layer. The weights are
fitted by least squares and then scaled, so that none of these steps takes more than is said. `--steps` keeps what was
measured, one JSON object a line, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

from medyate.errors import BudgetError
from medyate.plan.budget import Limits
from medyate.plan.instructions import WEIGHTS, WIDE, WIDENED, Effort
from medyate.plan.selecting import Selecting
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import Options, compile_model, gather, silent
from training_study import TASKS, Task, importable

MODELS = ("ic_resnet8_cifar10_int8", "kws_dscnn_int8", "vww_mobilenetv1_025_96_int8", "person_detect", "mbv2-w0.35.pkl")
MODELS += ("mcunet-5fps.pkl", "resnet20", "micro_speech", "derived/mbv2")
BUDGETS = (1000, 4000, 40000)
"""Bytes of what is trained."""
ODD, LARGE = ("kws_dscnn_int8", "ic_resnet8_cifar10_int8"), 200
"""Models that are measured with gradients of 16 bits, a head of so many classes, batches and all biases, too."""
BATCH = 4
FLOORS = {
    "back biases": 5.0,
    "back conv2d": 0.3,
    "back depthwise": 1.0,
    "back other": 5.0,
    "back values": 10.0,
    "back windows": 1.0,
    "forward conv2d": 0.8,
    "forward depthwise": 1.0,
    "forward other": 2.0,
    "forward values": 5.0,
    "forward windows": 0.1,
    "head": 60.0,
    "selected batch": 120.0,
    "selected conv2d": 3.0,
    "selected depthwise": 8.0,
    "selected taps": 250.0,
    "selected weights": 90.0,
}
"""What the loops take at least; the steps alone cannot tell one kind of work from another that comes with it."""
RAM = 1 << 21
WARM, MEASURED = 2, 4
"""Steps; the first ones have a head of zeros, whose gradients are zeros."""


@dataclass(frozen=True)
class Case:
    """What is compiled of a model."""

    budget: int
    bits: int = 8
    classes: int = 0
    batch: int = 1
    biases: bool = False


def measured(task: Task, shared: Path, case: Case) -> list[dict[str, Any]]:
    """(model, case, kind, work, most instructions) of each kind of step."""
    dataset, classes = task.dataset(shared), case.classes
    if classes:
        dataset = replace(dataset, classes=tuple(map(str, range(classes))))
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        folder = Path(name)
        limits = Limits(RAM, budget_bytes=case.budget, grad_bits=case.bits, batch=case.batch)
        options = Options("qemu-m7", limits, task.pixels, head=task.head, rank_epochs=1, builder="make")
        path = importable(shared / "models" / task.model, folder)
        if case.biases:
            named = [s.layer for s in gather(path, dataset, options, silent).ranking.scores]
            options = replace(options, limits=replace(limits, selecting=Selecting(biases=tuple(named))))
        plan, _ = compile_model(path, dataset, options, folder / "out")
        compiled = Compiled.read(folder / "out")
        samples, _ = int8_samples(compiled, dataset)
        form = (case.bits, case.batch, plan.limits.selecting.biases)
        effort = Effort(plan.qgraph.graph, int(compiled.model["outputs"]), *form)
        layers = [c.layer for c in plan.candidates]
        worst = dict(zip(layers, (c.worst for c in plan.candidates), strict=True))
        fit = [layer for layer, count in worst.items() if count]
        kinds = {"head": {}, "one": {fit[0]: 1}, "most": worst, "late": {fit[-1]: worst[fit[-1]]}}
        found = []
        with connect(compiled, "qemu", folder / "flash.bin") as session:
            for kind, chosen in kinds.items():
                session.begin(Training(0.01, 1, 100, "constant", head_only=not chosen))
                if chosen:
                    session.force([chosen.get(layer, 0) for layer in layers])
                count = max(WARM + MEASURED, 2 * case.batch)
                steps = [session.train(samples[i], int(dataset.y_train[i])) for i in range(count)]
                work = effort.base() + effort.selected(chosen)
                trained = [layer for layer, count in chosen.items() if count]
                if trained:
                    trained += effort.biases
                    work += effort.chain(min(trained, key=lambda layer: effort.places[layer])) + effort.biased()
                most = max(step.instructions for step in steps[WARM:])
                facts = {"model": task.model, **asdict(case), "kind": kind}
                found.append({**facts, "work": dict(work), "instructions": most})
    return found


def fitted(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Least squares of the ratios, with floors; then so much larger that no row takes more than is said."""
    kinds = list(FLOORS)
    taken = np.array([row["instructions"] for row in rows], float)
    share = np.array([[row["work"].get(kind, 0) for kind in kinds] for row in rows]) / taken[:, None]
    solved = lsq_linear(share, np.ones(len(rows)), bounds=(list(FLOORS.values()), np.inf)).x
    return dict(zip(kinds, solved / (share @ solved).min(), strict=True))


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
    known = {(row["model"], Case(**{field.name: row[field.name] for field in fields(Case)})) for row in rows}
    for task in TASKS:
        if not any(word in task.model for word in options.only):
            continue
        small, large = BUDGETS[1:]
        odd = [Case(small, 16), Case(small, classes=LARGE), Case(large, batch=BATCH), Case(large, biases=True)]
        for case in [*map(Case, BUDGETS), *(odd if any(word in task.model for word in ODD) else [])]:
            if (task.model, case) in known:
                continue
            try:
                found = measured(task, options.shared, case)
            except BudgetError:  # holds no channel of this network
                continue
            rows += found
            with options.steps.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
    weights = fitted([row for row in rows if row["bits"] == 8])
    print("WEIGHTS: Mapping[str, float] = {")
    for kind, weight in weights.items():
        print(f'    "{kind}": {weight:.3g},')
    print("}\n\n| model | budget | case | step | instructions | bound by these / measured | by those in use |")
    print("| --- | --: | --- | --- | --: | --: | --: |")
    for row in rows:
        wide = {kind: WIDE if row["bits"] == 16 and kind.startswith(WIDENED) else 1.0 for kind in row["work"]}
        bounds = [
            sum(w[kind] * wide[kind] * amount for kind, amount in row["work"].items() if kind in w)
            for w in (weights, WEIGHTS)
        ]
        ratios = " | ".join(f"{bound / row['instructions']:.3f}" for bound in bounds)
        said = {f"{row['bits']} bits": row["bits"] != 8, f"{row['classes']} classes": row["classes"]}
        said |= {f"batch {row['batch']}": row["batch"] > 1, "biases": row["biases"]}
        facts = f"{row['budget']:,} | {', '.join(what for what, holds in said.items() if holds)} | {row['kind']}"
        print(f"| {row['model']} | {facts} | {row['instructions']:,} | {ratios} |")


if __name__ == "__main__":
    main()
