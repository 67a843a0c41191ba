# SPDX-License-Identifier: Apache-2.0
"""Gradients of whole networks on real samples against autograd: every candidate layer of every shared network."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gradients import autograd, cosine, device_bias_gradient, device_gradient
from medyate import frontends
from medyate.datasets import Dataset, epoch_order
from medyate.plan.budget import Limits
from medyate.plan.plan import classes_loss, kept_head, make_plan
from medyate.plan.selecting import Selecting
from medyate.quantize.apply import input_quant
from medyate.stages import Options, make_head, make_ranking, prepare, silent
from probe import Probe
from shared_files import ROOT, TAKE_LONG, field_digits, shared, some_long
from training_study import TASKS, Task, importable

BATCH = 16
SETTLED = ("digitnet", "tflite", "mbv2-w0.35_imagenet")
SHORT = {"mobilenet_v2_1.0_224": 2, "224_imagenet_bn": 4}
"""Batches of networks whose steps take long."""
FEWER = 0.02
"""What 8 bits may lose in such a batch: the rounding of two samples averages out less than that of 16."""
LONG = os.environ.get("MEDYATE_LONG") == "1"
"""Repeats the samples of every network until its exponents settle: a quarter of an hour more."""
BOUNDS = ((16, 40, 0.999), (8, 40, 0.98), (8, 1, 0.95))
"""(bits, passes for the exponents to settle, cosine): exact exponents, then predicted ones."""
WIDE = {
    "224_imagenet_bn": {
        "conv1": (0.99, 0.8, 0.6),
        "conv_pw_1": (0.999, 0.93, 0.92),
        "conv_dw_1": (0.999, 0.96, 0.95),
        "conv_dw_5": (0.999, 0.98, 0.93),
    }
}
"""Layers with bounds of their own. One of conv1's folded batch norms has a scale 65 times that of the others, and
its channel's gradient is 240 times smaller than its neighbours': of the tensor's common exponent it has 240 times
fewer steps."""
BIASES = {"mobilenet_v2_1.0_224": ("expanded_conv_4/expand", 0.88)}
"""A layer whose biases' gradients have a bound of their own, of 8 bits: over two samples, most of the sum cancels."""
RANKED = 64
"""Samples that the head and the exponents start from."""


@dataclass(frozen=True)
class Subject:
    """A network and its task."""

    name: str
    model: Path
    dataset: Dataset
    pixels: str
    head: str
    batch: int


def digitnet() -> Subject:
    return Subject("digitnet", ROOT / "models" / "digitnet" / "digitnet.onnx", field_digits(), "signed", "new", BATCH)


def subject(task: Task, folder: Path) -> Subject:
    model = importable(shared(f"models/{task.model}"), folder)
    batch = next((count for word, count in SHORT.items() if word in task.model), BATCH)
    return Subject(task.model, model, task.dataset(ROOT.parent / "shared"), task.pixels, task.head, batch)


def test_integer_gradients_of_the_demonstration_agree_with_autograd(tmp_path: Path) -> None:
    agrees(digitnet(), tmp_path)


@pytest.mark.parametrize(
    "task",
    some_long(TASKS, lambda t: any(word in t.model for word in TAKE_LONG)),
    ids=lambda t: t.model.replace(".", "-"),
)
def test_integer_gradients_agree_with_autograd(task: Task, tmp_path: Path) -> None:
    agrees(subject(task, tmp_path), tmp_path)


def agrees(given: Subject, folder: Path) -> None:
    options = Options("host", Limits(0), rank_epochs=1)
    normal, qgraph, integers, dataset, meaning = prepare(frontends.load(given.model), given.dataset, given.pixels)
    order = epoch_order(1, 0, len(dataset.x_train))
    some = order[:RANKED]
    ranked = replace(dataset, x_train=dataset.x_train[some], y_train=dataset.y_train[some])
    ranking, trained = make_ranking(normal, ranked, meaning, options, silent)
    if given.head == "new":  # one that starts at zero lets no gradient through
        head = kept_head(trained, np.zeros(dataset.outputs, np.float32), classes_loss(dataset.outputs))
    else:
        head = make_head(normal, (qgraph, integers), dataset, meaning, given.head)
    samples = meaning.int8(dataset.x_train, input_quant(qgraph))
    assert head.weight is not None and head.bias is not None
    at_start = (head.weight / np.float32(4096), head.bias / np.float32(65536))
    calibration = (samples[order], dataset.y_train[order], at_start)
    batch = order[-given.batch :]
    labels = dataset.y_train[batch]
    reference = autograd(qgraph, integers, head, samples[batch], labels)
    wide = next((layers for word, layers in WIDE.items() if word in given.name), {})
    settles = LONG or (given.batch == BATCH and any(word in given.name for word in SETTLED))
    for setting, (bits, passes, usual) in enumerate(BOUNDS):
        if passes > 1 and not settles:
            continue
        biases = Selecting(biases=tuple(score.layer for score in ranking.scores))
        limits = Limits(256 << 20, alpha=1.0, grad_bits=bits, selecting=biases)
        plan = make_plan(qgraph, integers, ranking, head, limits, calibration)
        probe = Probe(plan, folder / f"{bits}-{passes}", record=True)
        probe.init()
        for number, index in enumerate(batch):
            probe.infer(samples[index])
            assert np.array_equal(probe.tensor(qgraph.graph.output), reference.features[number])
            probe.gradient_step(samples[index], labels[number], passes)
        assert len(plan.candidates) == len(ranking.scores)
        for index, candidate in enumerate(plan.candidates):
            expected = reference.gradients[f"{candidate.layer}.weight"]
            bound = wide[candidate.layer][setting] if candidate.layer in wide else usual
            bound -= FEWER if bits == 8 and given.batch < BATCH else 0.0
            found = cosine(device_gradient(plan, probe, index), expected)
            assert found >= bound, f"{candidate.layer}: {found:.4f} at {bits} bits, {passes} passes"
            expected = reference.gradients[f"{candidate.layer}.bias"]
            found = cosine(device_bias_gradient(plan, probe, plan.biases[index]), expected)
            layer, lower = next((own for word, own in BIASES.items() if word in given.name), ("", bound))
            bound = lower if bits == 8 and layer and layer in candidate.layer else bound
            assert found >= bound, f"biases of {candidate.layer}: {found:.4f} at {bits} bits, {passes} passes"
