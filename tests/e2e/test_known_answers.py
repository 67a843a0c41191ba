# SPDX-License-Identifier: Apache-2.0
"""How many real samples each network knows, on the device and in its own runtime: whole sets, known counts."""

from __future__ import annotations

import pytest

from import_study import SUBJECTS, study
from medyate.check import Report
from shared_files import ROOT, shared

WHOLE = 1000


def answered(model: str, samples: int) -> Report:
    """The device on the host, the oracle and the integers in PyTorch, on the same samples."""
    shared(f"models/{model}")
    subject = next(s for s in SUBJECTS if s.model == model)
    report = study(subject, ROOT.parent / "shared", "host", samples)
    assert report.samples == samples
    assert report.reference_differences == 0
    assert report.match
    return report


def right(share: float | None, samples: int) -> int:
    assert share is not None
    return round(share * samples)


@pytest.mark.parametrize(
    ("model", "known"), [("ic_resnet8_cifar10_int8.tflite", 879), ("kws_dscnn_int8.tflite", 901)], ids=["ic", "kws"]
)
def test_integers_of_a_tflite_file_know_what_the_reference_kernels_know(model: str, known: int) -> None:
    report = answered(model, WHOLE)
    assert right(report.accuracy_oracle, WHOLE) == right(report.accuracy_device, WHOLE) == known
    assert report.largest_difference_steps == 0
    assert report.predictions_agree == 1


@pytest.mark.parametrize(("model", "known"), [("mbv2-w0.35.pkl", 53), ("mcunet-5fps.pkl", 59)], ids=["mbv2", "mcunet"])
def test_a_quantised_checkpoint_knows_the_photos_that_its_simulation_knows(model: str, known: int) -> None:
    report = answered(model, 100)
    assert right(report.accuracy_oracle, 100) == right(report.accuracy_device, 100) == known
    assert report.predictions_agree == 1


@pytest.mark.long
def test_a_network_of_real_numbers_loses_nothing_as_integers() -> None:
    report = answered("ic_resnet8_cifar10_float.tflite", WHOLE)
    assert right(report.accuracy_oracle, WHOLE) == 885
    assert right(report.accuracy_device, WHOLE) >= 885
