# SPDX-License-Identifier: Apache-2.0
"""Real networks against their own runtimes: bit for bit where the file holds integers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Cli
from import_study import SUBJECTS, Subject, study
from medyate import check
from medyate.boards import MACHINES
from shared_files import ROOT, shared, some_long

QUANTISED = tuple(s for s in SUBJECTS if "int8" in s.model)
CHECKPOINTS = tuple(s for s in SUBJECTS if s.model.endswith(".pkl"))
LARGE = "mobilenet_v2_1.0_224"
LARGER = ("mobilenet", "person", "ad_autoencoder")
"""In the names of networks that `make test` compares on one core, and `make test-long` on all three."""
SAMPLES = 200
LARGE_SAMPLES = 10
"""Of the largest network, whose 300 million multiply-adds per sample the study runs on all 200."""


def root(subject: Subject) -> Path:
    shared(f"models/{subject.model}")
    return ROOT.parent / "shared"


@pytest.mark.parametrize(
    "subject", some_long(QUANTISED, lambda s: LARGE in s.model), ids=lambda s: s.model.partition(".")[0]
)
def test_integers_of_a_tflite_file_are_those_of_the_reference_kernels(subject: Subject) -> None:
    samples = LARGE_SAMPLES if LARGE in subject.model else SAMPLES
    report = study(subject, root(subject), "host", samples)
    assert report.samples == samples
    assert report.largest_difference_steps == 0
    assert report.reference_differences == 0
    assert report.match


def on_every_core() -> list[tuple[Subject, str]]:
    subjects = [subject for subject in QUANTISED if LARGE not in subject.model]
    return [(subject, target) for subject in subjects for target in MACHINES]


@pytest.mark.parametrize(
    ("subject", "target"),
    some_long(
        on_every_core(),
        lambda on: on[1] == "qemu-m33" or (on[1] != "qemu-m7" and any(word in on[0].model for word in LARGER)),
    ),
    ids=lambda value: value if isinstance(value, str) else value.model.partition(".")[0],
)
def test_cores_compute_the_same_integers(subject: Subject, target: str) -> None:
    report = study(subject, root(subject), target, 2 if target == "qemu-m55" else 10)
    assert report.match


@pytest.mark.parametrize("target", some_long(["host", "qemu-m7"], lambda target: target != "host"))
@pytest.mark.parametrize("subject", CHECKPOINTS, ids=lambda s: s.model.partition(".")[0])
def test_a_checkpoint_is_compared_with_the_simulation_that_defines_it(subject: Subject, target: str) -> None:
    report = study(subject, root(subject), target, 20 if target == "host" else 2)
    assert report.match
    assert report.reference_differences == 0
    assert report.predictions_agree >= 0.95
    assert report.close_share >= 0.99


def test_integers_that_round_otherwise_do_not_match_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """TFLite's two roundings are 8 to 12 predictions of 100 away."""
    subject = CHECKPOINTS[0]
    folder = root(subject)
    imported = check.load(folder / "models" / subject.model)
    assert imported.qgraph is not None
    twice = replace(imported, qgraph=replace(imported.qgraph, rounds_once=False))
    monkeypatch.setattr(check, "load", lambda *_: twice)
    report = study(subject, folder, "host", 20)
    assert report.reference_differences == 0
    assert not report.match


@pytest.mark.parametrize(
    "subject", [s for s in SUBJECTS if "float" in s.model], ids=lambda s: s.model.replace(".", "-")
)
def test_a_network_of_real_numbers_is_imported_as_it_is(subject: Subject) -> None:
    report = study(subject, root(subject), "host", 20)
    assert report.import_error is not None and report.import_error <= 1e-4
    assert report.reference_differences == 0


def test_the_command_reports_and_its_exit_code_says_whether_they_match(run_cli: Cli, tmp_path: Path) -> None:
    model = shared("models/hello_world_int8.tflite")
    ended = run_cli("verify", model, "--samples", 20, "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["match"], report["largest_difference_steps"]) == (0, True, 0)
    assert report["source"] == "random"


def test_the_table_of_operations_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "ops_table.py", "--check"], check=False)
    assert done.returncode == 0
