# SPDX-License-Identifier: Apache-2.0
"""Row by row is the same training: every schedule, rows of samples, masks made again, on the same integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medyate import frontends
from medyate.datasets import Dataset, epoch_order
from medyate.plan.budget import NOTHING, Limits, Network, Way, measure
from medyate.plan.plan import Plan, make_plan
from medyate.plan.recompute import Blocks
from medyate.plan.selecting import Selecting
from medyate.plan.stream import Planner
from medyate.quantize.apply import input_quant
from medyate.rank.lara import Ranking
from medyate.stages import Options, make_head, make_ranking, prepare, silent
from probe import Probe
from shared_files import ROOT, field_digits, shared, some_long
from training_study import TASKS

LAYERS = 12
STEPS = 3
SETTINGS = {
    "layer": ("layer", False, False),
    "auto": ("auto", False, False),
    "stream": ("stream", False, False),
    "rows": ("auto", True, False),
    "again": ("auto", False, True),
    "all": ("stream", True, True),
}


class Subject:
    """A network, ranked; plans of it differ in nothing but the way they save memory."""

    def __init__(self, model: Path, dataset: Dataset, pixels: str, layers: int) -> None:
        options = Options("host", Limits(0), rank_epochs=1)
        normal, self.qgraph, self.weights, dataset, meaning = prepare(frontends.load(model), dataset, pixels)
        some = epoch_order(1, 0, len(dataset.x_train))[:96]
        ranked = replace(dataset, x_train=dataset.x_train[some], y_train=dataset.y_train[some])
        ranking, trained = make_ranking(normal, ranked, meaning, options, silent)
        self.ranking = Ranking(ranking.network, ranking.task, ranking.scores[:layers])
        # Biases of some layers whose channels are candidates, and of some others.
        self.biases = tuple(score.layer for score in ranking.scores[layers // 2 : layers + 3])
        self.head = make_head(normal, (self.qgraph, self.weights), dataset, meaning, "new")
        self.samples = meaning.int8(ranked.x_train, input_quant(self.qgraph))
        self.labels = ranked.y_train
        self.calibration = (self.samples, self.labels, (trained, np.zeros(len(trained), np.float32)))

    def plan(self, schedule: str, *, by_rows: bool, again: bool, bits: int, batch: int = 1) -> Plan:
        selecting = Selecting(biases=self.biases)
        limits = Limits(1 << 24, schedule=schedule, grad_bits=bits, selecting=selecting, batch=batch)
        network = Network(self.qgraph, self.weights, self.head.loss, Planner())
        choices = Blocks(self.qgraph.graph, limits.trained(self.ranking.scores)).choices()
        way = Way(by_rows, choices[-1] if again else NOTHING)
        row = measure(network, limits.candidates(self.ranking), limits, way, careful=False)
        rest = (self.head, limits, self.calibration, (row, (row,)))
        return make_plan(self.qgraph, self.weights, self.ranking, *rest)


def trained(plan: Plan, given: Subject, folder: Path) -> tuple[int, ...]:
    """Digests after two short epochs."""
    probe = Probe(plan, folder, record=False)
    probe.init(seed=3, rate_mult=24576, rate_exponent=-20, clip=0.05)
    for epoch in range(2):
        for number in range(STEPS):
            probe.step(given.samples[epoch * STEPS + number], given.labels[epoch * STEPS + number])
        if epoch == 0:
            probe.end_epoch()
    return (*probe.digests(), *(int(v) for v in probe.infer(given.samples[-1])))


def same_everywhere(given: Subject, bits: int, folder: Path, batch: int = 1) -> None:
    digests, peaks = {}, {}
    for name, (schedule, by_rows, again) in SETTINGS.items():
        plan = given.plan(schedule, by_rows=by_rows, again=again, bits=bits, batch=batch)
        digests[name], peaks[name] = trained(plan, given, folder / f"{name}{bits}"), plan.layout.peak_bytes
    assert len(set(digests.values())) == 1, digests
    assert peaks["auto"] <= peaks["layer"]
    assert peaks["rows"] <= 1.01 * peaks["auto"]


@pytest.mark.parametrize(("bits", "batch"), [(8, 1), (16, 1), (8, 2), (16, 4)])
def test_the_demonstration_trains_alike_in_every_way(bits: int, batch: int, tmp_path: Path) -> None:
    digitnet = Subject(ROOT / "models" / "digitnet" / "digitnet.onnx", field_digits(), "signed", LAYERS)
    same_everywhere(digitnet, bits, tmp_path, batch)


@pytest.mark.parametrize(
    ("model", "layers"),
    some_long(
        [
            ("mbv2-w0.35.pkl", 30),
            ("mcunet-5fps.pkl", 30),
            ("ic_resnet8_cifar10_int8.tflite", 9),
            ("kws_dscnn_int8.tflite", 9),
            ("vww_mobilenetv1_025_96_int8.tflite", 20),
        ],
        lambda subject: subject[0].endswith(".pkl"),
    ),
)
def test_shared_networks_train_alike_in_every_way(model: str, layers: int, tmp_path: Path) -> None:
    task = next(task for task in TASKS if task.model == model)
    path = shared(f"models/{model}")
    same_everywhere(Subject(path, task.dataset(path.parents[1]), task.pixels, layers), 8, tmp_path)
