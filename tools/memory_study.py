# SPDX-License-Identifier: Apache-2.0
"""Compiles networks into little memory, trains a few steps on the emulated Cortex-M7, and prints what it took.

    python tools/memory_study.py SHARED [--only NAME ...] [-o FOLDER] [--learn]

SHARED is the folder with models/ and data/. Candidate layers come by the rule from a ranking made on another task
(clothing10); training is on flowers17, one sample per update. The second table compares the ways of saving memory on
one choice of layers and one budget, and ends with 1 if rows cost more than a tenth. The third is of inference arenas.
`--learn` adds what the smallest totals learn: whole trainings on the host twin, of the same integers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medyate import frontends
from medyate.build.compile import build
from medyate.build.project import write_project
from medyate.datasets import epoch_order, load
from medyate.ir import QGraph, Weights
from medyate.ledger import arena_bytes
from medyate.passes.pipeline import simplify
from medyate.plan.budget import NOTHING, Limits, Network, Way
from medyate.plan.budget import measure as measure_row
from medyate.plan.plan import Calibration, Head, Plan, classes_loss, inference_plan, make_plan, new_head
from medyate.plan.recompute import Blocks
from medyate.plan.stream import Planner
from medyate.quantize.apply import input_quant
from medyate.rank.lara import Ranking
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, connect_image, int8_samples, measure
from medyate.stages import Options, make_ranking, prepare, silent
from transfer_study import medyate

RANKED, TRAINED = "clothing10", "flowers17"
STEPS = 8
COMPARED = 3
"""Steps of the comparison."""


@dataclass(frozen=True)
class Point:
    """A network, its memory, and the least that it must train."""

    model: str
    ram: str
    recompute: str
    elements: int
    strategy: tuple[str, ...] = ()
    """Options of `compile`."""


POINTS = (
    Point("mbv2-w0.35.pkl", "116KiB", "none", 27946),
    Point("mbv2-w0.35.pkl", "90KiB", "auto", 27946),
    Point("mbv2-w0.35.pkl", "180KiB", "auto", 93696),
    Point("mbv2-w0.35.pkl", "64KiB", "none", 0),
    Point("mcunet-5fps.pkl", "82KiB", "none", 15936),
    Point("mcunet-5fps.pkl", "70KiB", "auto", 15936),
    Point("mcunet-5fps.pkl", "120KiB", "none", 0, ("--strategy", "su", "--set", "scheme=49kb")),
)
ARENAS = {
    "ic_resnet8_cifar10_int8.tflite": 27_648,
    "vww_mobilenetv1_025_96_int8.tflite": 34_816,
    "kws_dscnn_int8.tflite": 10_752,
    "ad_autoencoder_int8.tflite": 1_024,
}
"""Inference arenas that were asked for, input included."""
LAYERS = {"mbv2-w0.35.pkl": 17, "mcunet-5fps.pkl": 9}
"""Candidate layers of the comparison: those of the first points."""
WAYS = {
    "layer by layer": ("layer", "none", "whole"),
    "streams where they lower the peak": ("auto", "none", "whole"),
    "streams wherever they save bytes": ("stream", "none", "whole"),
    "and the sample by rows": ("auto", "none", "rows"),
    "and repetitions": ("auto", "auto", "rows"),
}
ROWS_COST = 1.10
LEARNING = "mbv2-w0.35.pkl"
LEARNT = ("smallest", "64KiB", "90KiB")
EPOCHS = "12"
TRAINING = (
    "ram",
    "strategy",
    "recompute",
    "sample",
    "budget",
    "RAM used",
    "planned",
    "stack",
    "instructions/step",
    "digest",
)


def arena(model: Path) -> tuple[int, int]:
    """Bytes of the arena of a network as it came: the least, and with room for all kernels."""
    imported = simplify(frontends.load(model))
    assert imported.qgraph is not None
    plan = inference_plan(imported.qgraph, imported.weights, Limits(1 << 30), least=True)
    return arena_bytes(plan.layout.peak_bytes, 0, 0), plan.arena_bytes


def ranked(shared: Path, model: str, out: Path) -> Path:
    """The ranking of a network, made once."""
    ranking = out / f"{model}.json"
    if not ranking.exists():
        medyate("rank", str(shared / "models" / model), "--data", str(shared / "data" / RANKED), "-o", str(ranking))
    return ranking


@dataclass(frozen=True)
class Subject:
    """A network with what its plans are made from."""

    qgraph: QGraph
    weights: Weights
    ranking: Ranking
    head: Head
    calibration: Calibration

    @staticmethod
    def load(shared: Path, model: str, ranking: Path) -> Subject:
        """Quantised for the task, ranked on the other one."""
        dataset = load(str(shared / "data" / TRAINED))
        prepared = prepare(frontends.load(shared / "models" / model), dataset, "auto")
        normal, qgraph, weights, dataset, meaning = prepared
        options = Options("host", Limits(0), ranking=ranking)
        ranked, trained = make_ranking(normal, dataset, meaning, options, silent)
        samples = meaning.int8(dataset.x_train, input_quant(qgraph))
        start = (trained, np.zeros(len(trained), np.float32))
        return Subject(
            qgraph, weights, ranked, new_head(classes_loss(dataset.outputs)), (samples, dataset.y_train, start)
        )

    def plan(self, layers: int, way: tuple[str, str, str]) -> Plan:
        """With so many layers and the rule's whole budget: the same selections in every way."""
        schedule, recompute, sample = way
        limits = Limits(1 << 21, schedule=schedule)
        scores = self.ranking.scores[:layers]
        choices = Blocks(self.qgraph.graph, [score.layer for score in scores]).choices()
        saving = Way(sample == "rows", choices[-1] if recompute == "auto" else NOTHING)
        row = measure_row(Network(self.qgraph, self.weights, self.head.loss, Planner()), scores, limits, saving)
        given = (self.qgraph, self.weights, self.ranking, self.head)
        plan = make_plan(*given, limits, self.calibration, (row, (row,)))
        # Again with what it needs: kernels get memory to work in where more is left.
        needed = arena_bytes(plan.row.planned_bytes if plan.row else 0, plan.epoch_bytes, plan.state.bytes)
        exact = replace(limits, ram_bytes=needed + limits.reserved_bytes)
        return make_plan(*given, exact, self.calibration, (row, (row,)))


def compared(shared: Path, model: str, ranking: Path) -> list[tuple[str, int, int, str]]:
    """(way, planned bytes, instructions per step on the emulated Cortex-M7, digest) of one training in every way."""
    subject = Subject.load(shared, model, ranking)
    found = []
    for name, way in WAYS.items():
        plan = subject.plan(LAYERS[model], way)
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder) / "project"
            write_project(plan, project)
            image = build(plan, project, "qemu-m7", "make").path
            flash = Path(folder) / "flash.bin"
            with connect_image(image, "qemu-m7", plan.digest, flash, count=True) as session:
                session.begin(Training(0.0015, 1, COMPARED, "constant", clip=0.0))
                samples, labels, _ = subject.calibration
                steps = [session.train(samples[i], int(labels[i])).instructions for i in range(COMPARED)]
                digest = str(session.digests())
        found.append((name, plan.layout.planned_bytes, round(sum(steps) / COMPARED), "-".join(digest.split("-")[:3])))
    return found


def needed_bytes(plan: Mapping[str, Any]) -> int:
    """RAM with which nothing is left for kernels to work in."""
    row = next(row for row in plan["table"] if row["k"] == len(plan["candidates"]))
    arena = arena_bytes(row["planned_bytes"], plan["epoch_bytes"], plan["state_bytes"])
    return int(arena + plan["static_reserved_bytes"] + plan["stack_reserved_bytes"])


def measured(shared: Path, point: Point, out: Path) -> tuple[str, ...]:
    """One row: compiled, and run on the emulated board."""
    model, data = str(shared / "models" / point.model), str(shared / "data" / TRAINED)
    ranking = ranked(shared, point.model, out)
    folder = str(out / f"{point.model}-{point.ram}")
    saving = ("--recompute", point.recompute, "--min-elements", str(point.elements), *point.strategy)
    given = (model, "--data", data, "--target", "qemu-m7", "--builder", "make", *saving, "--ranking", str(ranking))
    plan = medyate("compile", *given, "--ram", point.ram, "-o", folder)
    plan = medyate("compile", *given, "--ram", str(needed_bytes(plan)), "-o", folder) | {
        "ram_limit_bytes": plan["ram_limit_bytes"]
    }
    compiled = Compiled.read(Path(folder))
    dataset = load(data)
    samples, _ = int8_samples(compiled, dataset)
    some = epoch_order(0, 0, len(samples))[:STEPS]
    with connect(compiled, "qemu", Path(folder) / "flash.bin") as session:
        session.begin(Training(0.0015, 1, STEPS, clip=0.0))
        steps = [session.train(samples[i], int(dataset.y_train[i])).instructions for i in some]
        session.commit()
        digest = str(session.digests())
    marks = measure(compiled, "qemu", samples[0])
    beyond = marks.planned + marks.epoch + marks.state - plan["arena_planned_bytes"]
    assert 0 <= beyond <= plan["workspace_bytes"]
    return (
        f"{plan['ram_limit_bytes']:,}",
        " ".join(point.strategy) or "the rule",
        point.recompute,
        plan["sample"],
        f"{plan['b_mem_elements']:,} elements",
        f"{marks.static + marks.stack:,}",
        f"{marks.planned:,}",
        str(marks.stack),
        f"{round(sum(steps) / STEPS):,}",
        digest,
    )


def learnt(shared: Path, ram: str, out: Path) -> tuple[str, ...]:
    """One row: the whole training within a total, by the rule, and of the head alone."""
    model, data, ranking = shared / "models" / LEARNING, shared / "data" / TRAINED, ranked(shared, LEARNING, out)
    given = (str(model), "--data", str(data), "--ranking", str(ranking))
    if ram == "smallest":
        found = medyate("plan", *given, "--frontier", "--ram", "64KiB")
        ram = str(found["smallest_ram_bytes"])
    folder = str(out / f"learn-{ram}")
    plan = medyate("compile", *given, "--ram", ram, "-o", folder)
    run = ("run", folder, "--data", str(data), "--epochs", EPOCHS, "--flip", "--no-measure", "--evaluate-at-end")
    run += ("--rate", "0.0015", "--clip", "0", "--fresh")
    accuracies = [medyate(*run, *more)["accuracy_after"] for more in ((), ("--head-only",))]
    return (
        f"{plan['ram_limit_bytes']:,}",
        str(len(plan["candidates"])),
        f"{plan['b_mem_elements']:,}",
        plan["sample"],
        *(f"{accuracy:.4f}" for accuracy in accuracies),
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--learn", action="store_true")
    options = parser.parse_args()

    def wanted(model: str) -> bool:
        return not options.only or any(name in model for name in options.only)

    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        print(f"| model | {' | '.join(TRAINING)} |\n|{' --- |' * (len(TRAINING) + 1)}")
        for point in POINTS:
            if wanted(point.model):
                print(f"| {point.model} | {' | '.join(measured(options.shared, point, out))} |", flush=True)
        if options.learn:
            print("\n| ram | layers | elements | sample | accuracy | head only |\n|" + " --- |" * 6)
            for ram in LEARNT:
                print(f"| {' | '.join(learnt(options.shared, ram, out))} |", flush=True)
        dear = False
        print("\n| model | way | planned | instructions/step | of layer by layer | digest |\n|" + " --- |" * 6)
        for model in filter(wanted, LAYERS):
            found = compared(options.shared, model, ranked(options.shared, model, out))
            least = found[0][2]
            dear |= any(steps > ROWS_COST * least for _, _, steps, _ in found[:-1])
            dear |= len({digest for *_, digest in found}) > 1
            for name, planned, steps, digest in found:
                print(f"| {model} | {name} | {planned:,} | {steps:,} | {steps / least:.3f} | {digest} |", flush=True)
    print("\n| model | inference arena, least | with room for kernels | asked for |\n| --- | --: | --: | --: |")
    for model, limit in ARENAS.items():
        if wanted(model):
            least, roomy = arena(options.shared / "models" / model)
            print(f"| {model} | {least:,} | {roomy:,} | {limit:,} |")
            dear |= least > limit
    sys.exit(dear)


if __name__ == "__main__":
    main()
