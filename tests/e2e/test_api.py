# SPDX-License-Identifier: Apache-2.0
"""The Python interface: the same plan, program and training as the commands give, and sentences for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medyate
from conftest import DIGITNET, Cli
from medyate.artefact import read_json
from medyate.errors import ArtefactError, BudgetError, DataError, ModelError

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "first_steps.ipynb"


def silent(phase: str, done: int, total: int) -> None:
    """No bar."""


@pytest.fixture(scope="module")
def built(small: Any, tmp_path_factory: pytest.TempPathFactory) -> medyate.Built:
    plan = medyate.load(DIGITNET).plan(small, ram="24KiB", target="qemu-m7", progress=silent)
    return plan.compile(tmp_path_factory.mktemp("api") / "out", progress=silent)


@pytest.fixture(scope="module")
def small() -> Any:
    digits = medyate.data("digits")
    return medyate.data((digits.x_train[:96], digits.y_train[:96], digits.x_test[:32], digits.y_test[:32]))


def test_a_plan_is_that_of_the_command(run_cli: Cli) -> None:
    plan = medyate.load(DIGITNET).plan("digits", ram=24576, alpha=0.3, progress=silent)
    content = json.loads(run_cli("plan", DIGITNET, "--data", "digits", "--ram", "24KiB", "--alpha", 0.3, "--json").out)
    assert json.loads(json.dumps(plan.content)) == content
    assert "the peak is" in str(plan) and "Plan(" in repr(plan)
    assert plan._repr_html_().startswith("<pre>") and "<svg" in plan._repr_html_()


def test_a_picture_without_its_package_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = medyate.load(DIGITNET).plan("digits", ram="24KiB", progress=silent)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "<svg" not in plan._repr_html_() and "the peak is" in plan._repr_html_()


def test_a_training_is_that_of_the_command(built: medyate.Built, small: Any, tmp_path: Path, run_cli: Cli) -> None:
    phases = set()
    with built.simulate(flash=tmp_path / "flash.bin", progress=silent) as sim:
        run = sim.fit(small, epochs=3, rate=0.05, seed=1, progress=lambda phase, done, total: phases.add(phase))
        exported = sim.export(tmp_path / "trained.tflite")
    assert {"epoch 1/3", "epoch 3/3"} <= phases or any("epoch" in phase for phase in phases), phases
    twin = built.folder / "host"
    arrays = {f"{role}_{part}": getattr(small, f"{role}_{part}") for role in "xy" for part in ("train", "test")}
    np.savez(tmp_path / "small.npz", **arrays)
    given = ("--data", tmp_path / "small.npz", "--epochs", 3, "--rate", 0.05, "--seed", 1, "--json")
    files = ("--flash", tmp_path / "other.bin", "--log", tmp_path / "other.json")
    ended = run_cli("run", twin, *given, *files)
    assert ended.code == 0, ended.err
    log = json.loads(ended.out)
    assert run.content["digest"] == log["digest"] and run.accuracy == log["accuracy_after"]
    assert len(run.history) == 3 and run.loss is not None and f"{run.accuracy:.4f}" in str(run)
    assert "<svg" in run._repr_html_()
    assert exported["epochs"] == 3 and (tmp_path / "trained.tflite").stat().st_size == exported["bytes"]


def test_steps_are_those_of_the_emulated_program(built: medyate.Built, small: Any, tmp_path: Path) -> None:
    seen = []
    for simulator in (
        built.simulate(flash=tmp_path / "a.bin", progress=silent),
        built.emulate(flash=tmp_path / "b.bin"),
    ):
        with simulator as sim:
            before = sim.infer(small.x_test[0], small.y_test[0])
            sim.begin(16, rate=0.1, seed=3)
            losses = [sim.train_step(x, y).loss for x, y in zip(small.x_train[:16], small.y_train[:16], strict=True)]
            assert sim.end_epoch() == 1
            after = sim.infer(small.x_test[0], small.y_test[0])
            again = sim.train_step(small.x_train[0], small.y_train[0])
        seen.append((before.loss, losses, after.loss, after.logits.tolist(), again.loss))
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][2]
    with built.simulate(flash=tmp_path / "a.bin", progress=silent) as sim:  # what was committed is still there
        assert sim.infer(small.x_test[0], small.y_test[0]).loss == seen[0][2]


def test_a_folder_is_opened_again(built: medyate.Built) -> None:
    twin = built.folder / "host"
    built.simulate(progress=silent).close()
    assert medyate.Built(twin).target == "host"
    medyate.Built(twin).simulate().close()
    with pytest.raises(ArtefactError, match="target='host'"):
        medyate.Built(built.folder).simulate()
    with pytest.raises(ArtefactError):
        medyate.Built(built.folder / "nothing")


class Pairs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        if number >= len(self):
            raise IndexError(number)
        generator = torch.Generator().manual_seed(number)
        return torch.randn(1, 8, 8, generator=generator) + number % 2, number % 2


def test_a_module_and_a_torch_dataset(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    loaded = medyate.load(net, torch.zeros(1, 1, 8, 8))
    data = medyate.data(Pairs(), split=0.5, classes=("low", "high"))
    assert data.classes == ("low", "high") and len(data.x_train) == len(data.x_test) == 20
    plan = loaded.plan(data, ram="24KiB", pixels="raw", progress=silent)
    with plan.compile(tmp_path / "out", progress=silent).simulate() as sim:
        run = sim.fit(data, epochs=20, rate=0.1, progress=silent)
    assert run.accuracy is not None and run.accuracy >= 0.9
    assert loaded.describe()["layers"]


def test_arrays_come_as_they_are_known_from_files(tmp_path: Path) -> None:
    x = np.arange(40 * 16, dtype=np.float32).reshape(40, 4, 4)
    y = np.arange(40) % 4
    np.savez(tmp_path / "own.npz", x=x, y=y)
    stored = medyate.data(tmp_path / "own.npz")
    for given in (medyate.data((x, y)), medyate.data({"x": x, "y": y}), medyate.data({"x": x.tolist(), "y": list(y)})):
        assert np.array_equal(given.x_train, stored.x_train) and np.array_equal(given.y_test, stored.y_test)
    whole = medyate.data((x, y, x[:4], y[:4]), name="mine")
    assert whole.name == "mine" and len(whole.x_test) == 4
    assert medyate.data(whole) is whole


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: medyate.load("nothing.onnx"), ModelError, "is no file"),
        (lambda: medyate.load("net.docx"), ModelError, "docx"),
        (lambda: medyate.load(nn.Linear(2, 2)), DataError, "example"),
        (lambda: medyate.load(3), DataError, "no network"),
        (lambda: medyate.data(3), DataError, "no data set"),
        (lambda: medyate.data(([[1], [1, 2]], [0, 1])), DataError, "no array"),
        (lambda: medyate.load(nn.Linear(2, 2), "abc"), ModelError, "torch.export"),
        (lambda: medyate.load(DIGITNET).plan("digits", set="k=1"), DataError, "no dict"),
        (lambda: medyate.data((np.zeros((4, 2)), np.zeros(3, int))), DataError, "x_train is"),
        (lambda: medyate.data((np.zeros((4, 2)), np.zeros(4, int)), split=1.5), DataError, "share"),
        (lambda: medyate.load(DIGITNET).plan("digits", ram="much"), DataError, "no size"),
        (lambda: medyate.load(DIGITNET).plan("digits", ram="2KiB"), BudgetError, "2,048 B of RAM"),
        (lambda: medyate.load(DIGITNET).plan("digits", colour="red"), DataError, "'colour' is unknown"),
        (lambda: medyate.load(DIGITNET).plan("digits", target="arduino"), DataError, "arduino"),
        (lambda: medyate.load(DIGITNET).plan("digits", seed=-1), DataError, "seed"),
        (lambda: medyate.load(DIGITNET).plan("digits", set={"nothing": 1}), DataError, "nothing=1"),
    ],
)
def test_mistakes_are_named(wrong: Any, error: type[medyate.MedyateError], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)) as raised:
        wrong()
    assert isinstance(raised.value, medyate.MedyateError) and raised.value.remedy


def test_mistakes_of_a_simulation_are_named(built: medyate.Built, small: Any, tmp_path: Path) -> None:
    with built.simulate(flash=tmp_path / "flash.bin", progress=silent) as sim:
        for wrong in (
            lambda: sim.train_step(small.x_train[0], 0),
            sim.end_epoch,
            lambda: sim.infer(np.zeros((5, 5, 1))),
            lambda: sim.begin(0),
            lambda: sim.begin(4, schedule="steps"),
            lambda: sim.begin(4, rate=-1.0),
            lambda: sim.begin(4, seed=-1),
            lambda: sim.infer(np.full_like(small.x_test[0], np.nan, np.float32)),
            lambda: sim.infer(small.x_test[0], 99),
            lambda: sim.infer(small.x_test[0], "one"),
            lambda: sim.fit(small, epochs=0),
            lambda: sim.fit(small, flash="other.bin"),
            lambda: sim.fit(small, colour="red"),
            lambda: sim.fit(small, rate="fast"),
            lambda: sim.export(tmp_path / "network.zip"),
        ):
            with pytest.raises(medyate.MedyateError):
                wrong()


def test_nothing_that_was_learned_is_lost_unasked(built: medyate.Built, small: Any, tmp_path: Path) -> None:
    with built.simulate(flash=tmp_path / "flash.bin", progress=silent) as sim:
        sim.fit(small, epochs=2, rate=0.05, no_measure=True, progress=silent)
        with pytest.raises(DataError, match="trained for 2 epochs"):
            sim.begin(4)
        with pytest.raises(DataError, match="other settings"):
            sim.begin(4, resume=True)
        sim.begin(4, fresh=True)
        sim.train_step(small.x_train[0], int(small.y_train[0]))
        assert sim.end_epoch() == 1


def test_a_run_is_reported_as_it_was(built: medyate.Built, small: Any, tmp_path: Path) -> None:
    """Also when another one has left its log in the folder."""
    with built.simulate(flash=tmp_path / "flash.bin", progress=silent) as sim:
        first = sim.fit(small, epochs=2, rate=0.05, no_measure=True, progress=silent)
        sim.fit(small, epochs=1, rate=0.05, fresh=True, no_measure=True, progress=silent)
    first.report(tmp_path / "first.html")
    assert str(first.content["digest"]) in (tmp_path / "first.html").read_text()


def test_a_module_stays_in_its_mode() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    medyate.load(net, torch.zeros(1, 1, 2, 2))
    assert net.training


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Jupyter would run it, with its outputs left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digitnet.onnx").symlink_to(DIGITNET)
    cells = [cell for cell in read_json(NOTEBOOK)["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "cell", "exec"), names)  # the project's own file
    assert len(cells) >= 6 and names["run"].accuracy > 0.8
