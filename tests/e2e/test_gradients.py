# SPDX-License-Identifier: Apache-2.0
"""Gradients of whole networks on real samples against autograd: a batch of 16, every candidate layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradients import autograd, cosine, device_gradient
from medyate import frontends
from medyate.data import Dataset, epoch_order
from medyate.data import load as load_data
from medyate.plan.budget import Limits
from medyate.plan.plan import classes_loss, kept_head, make_plan
from medyate.quantize.apply import input_quant
from medyate.stages import Options, make_ranking, prepare, silent
from probe import Probe
from shared_files import field_digits, shared

ROOT = Path(__file__).parents[2]
BATCH = 16


def digitnet() -> tuple[Path, Dataset]:
    return ROOT / "models" / "digitnet" / "digitnet.onnx", field_digits()


def mobilenet() -> tuple[Path, Dataset]:
    model = shared("models/derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx")
    return model, load_data(str(shared("data/flowers17")))


@pytest.mark.parametrize("network", [digitnet, mobilenet], ids=["digitnet", "mbv2-w0.35"])
def test_integer_gradients_agree_with_autograd(network: object, tmp_path: Path) -> None:
    model, dataset = network()  # type: ignore[operator]
    options = Options("host", Limits(0), rank_epochs=1)
    normal, qgraph, integers, dataset, meaning = prepare(frontends.load(model), dataset, "signed")
    ranking, trained = make_ranking(normal, dataset, meaning, options, silent)
    head = kept_head(trained, np.zeros(dataset.outputs, np.float32), classes_loss(dataset.outputs))
    samples = meaning.int8(dataset.x_train, input_quant(qgraph))
    order = epoch_order(1, 0, len(samples))
    calibration = (samples[order], dataset.y_train[order], trained)
    batch = order[100 : 100 + BATCH]
    labels = dataset.y_train[batch]
    reference = autograd(qgraph, integers, head, samples[batch], labels)
    # (bits, passes for the exponents to settle, bound): exact exponents, then predicted ones
    for bits, passes, bound in ((16, 40, 0.999), (8, 40, 0.98), (8, 1, 0.95)):
        limits = Limits(64 << 20, alpha=1.0, grad_bits=bits)
        plan = make_plan(qgraph, integers, ranking, head, limits, calibration)
        folder = tmp_path / f"{bits}-{passes}"
        probe = Probe(plan, folder, record=True)
        probe.init()
        for number, index in enumerate(batch):
            probe.infer(samples[index])
            assert np.array_equal(probe.tensor(qgraph.graph.output), reference.features[number])
            probe.gradient_step(samples[index], int(labels[number]), passes)
        assert len(plan.candidates) == len(ranking.scores)
        for index, candidate in enumerate(plan.candidates):
            expected = reference.gradients[f"{candidate.layer}.weight"]
            found = cosine(device_gradient(plan, probe, index), expected)
            assert found >= bound, f"{candidate.layer}: {found:.4f} at {bits} bits, {passes} passes"
