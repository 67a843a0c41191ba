# SPDX-License-Identifier: Apache-2.0
"""Stages are made once for the same inputs, and never taken for other ones; a cache that is broken is none."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from medyate import cache, stages
from medyate.datasets import Dataset
from medyate.plan import exponents
from medyate.plan.budget import Limits
from medyate.plan.layout import _Placer
from medyate.plan.plan import Plan
from medyate.stages import Options, gather, silent
from shared_files import ROOT, field_digits

DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
STAGES = ("quantised", "ranking", "gradients", "needs", "layout")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def plan(dataset: Dataset | None = None, ram: int = 24 << 10, **changed: object) -> Plan:
    """Of digitnet."""
    options = replace(Options("host", Limits(ram), rank_epochs=1), **changed)  # type: ignore[arg-type]
    return gather(DIGITNET, dataset or field_digits(), options, silent).plan(options.limits)


def forbid(monkeypatch: pytest.MonkeyPatch, *names: tuple[object, str]) -> None:
    """These must not be called."""
    for module, name in names:

        def called(*_: object, name: str = name, **__: object) -> None:
            raise AssertionError(f"{name} was called again")

        monkeypatch.setattr(module, name, called)


def entries(folder: Path) -> dict[str, int]:
    """How many there are of each stage."""
    names = [path.stem.partition("-")[0] for path in folder.glob("*.npz")]
    return {name: names.count(name) for name in STAGES}


def test_what_is_kept_is_what_is_made_without_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan()
    assert all(entries(folder).values())
    again = plan()
    monkeypatch.setenv(cache.VARIABLE, cache.OFF)
    afresh = plan()
    assert first.to_json() == again.to_json() == afresh.to_json()
    assert first.digest == again.digest == afresh.digest
    assert first.exponents == again.exponents == afresh.exponents


def test_a_second_plan_makes_nothing_that_memory_does_not_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan()
    before = entries(folder)
    forbid(monkeypatch, (stages, "quantize"), (stages, "collect"), (exponents, "tensor_gradients"))
    other = plan(ram=23 << 10)
    assert other.arena_bytes <= 23 << 10
    after = entries(folder)
    assert {name: after[name] - before[name] for name in ("quantised", "ranking", "gradients")} == {
        "quantised": 0,
        "ranking": 0,
        "gradients": 0,
    }
    forbid(monkeypatch, (_Placer, "climb"), (_Placer, "place"))
    plan(ram=23 << 10)


@pytest.mark.parametrize("what", ["sample", "label", "seed", "epochs", "weights", "pixels", "version"])
def test_other_inputs_are_another_entry(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan()
    before = entries(folder)
    dataset, changed = field_digits(), {}
    if what == "sample":
        x = dataset.x_train.copy()
        x[3] ^= 1
        dataset = replace(dataset, x_train=x)
    elif what == "label":
        y = dataset.y_train.copy()
        y[0] = (y[0] + 1) % 10
        dataset = replace(dataset, y_train=y)
    elif what == "version":
        monkeypatch.setattr(cache, "_program", lambda: "another")
    elif what == "weights":
        loaded = stages.frontends.load(DIGITNET)
        name = next(name for name in loaded.weights if name.endswith(".weight"))
        weights = {**loaded.weights, name: np.asarray(loaded.weights[name]) * np.float32(1.001)}
        monkeypatch.setattr(stages.frontends, "load", lambda *_: replace(loaded, weights=weights))
    else:
        changed = {{"seed": "seed", "epochs": "rank_epochs", "pixels": "pixels"}[what]: {"pixels": "unit"}.get(what, 2)}
    plan(dataset, **changed)
    assert entries(folder)["ranking"] == before["ranking"] + 1


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "folder"])
def test_a_damaged_entry_is_made_again(damage: str, folder: Path) -> None:
    first = plan()
    for path in folder.glob("*.npz"):
        content = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        else:
            size = {"truncated": len(content) // 2, "garbage": 0, "empty": 0}[damage]
            path.write_bytes(content[:size] + (os.urandom(300) if damage == "garbage" else b""))
    assert plan().to_json() == first.to_json()


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("somebody's")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    plan()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "full"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medyate.cache.os.replace", full)
    plan()
    assert (tmp_path / "file").read_text() == "somebody's" and not list((tmp_path / "full").iterdir())


def test_what_was_not_used_for_longest_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 100_000)
    for number in range(40):
        cache.kept("numbers", (number,), lambda: {"x": np.zeros(1000)})
        for path in folder.glob("*.npz"):  # a second between two
            status = path.stat()
            os.utime(path, (status.st_atime - 1, status.st_mtime - 1))
        cache.kept("numbers", (0,), lambda: {"x": np.ones(1)})
    cache._shrink(folder)
    names = {path.name for path in folder.glob("*.npz")}
    assert f"numbers-{cache.digest((0,))}.npz" in names and f"numbers-{cache.digest((39,))}.npz" in names
    assert sum(path.stat().st_size for path in folder.glob("*.npz")) <= 100_000


def test_equal_looking_inputs_are_told_apart() -> None:
    parts = [
        ({"a": np.zeros(2)},),
        ({"b": np.zeros(2)},),
        (np.zeros(2),),
        (np.zeros(2, np.float32),),
        (np.zeros((2, 1)),),
        (1,),
        ("1",),
        (True,),
        (1, 1),
        ("11",),
        ("1", "1"),
        ((1, 1),),
        ({},),
        (),
    ]
    assert len({cache.digest(part) for part in parts}) == len(parts)


def test_the_command_plans_again_without_the_ranking(
    folder: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("plan", DIGITNET, "--data", "digits", "--json", "--ram")
    first = run_cli(*command, "24KiB")
    forbid(monkeypatch, (stages, "quantize"), (stages, "collect"))
    second = run_cli(*command, "24KiB")
    assert first.code == second.code == 0 and first.out == second.out


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache.folder() is None
    assert cache.kept("numbers", (1,), lambda: {"x": np.array(3)})["x"] == 3


def test_arrays_come_back_as_they_were(folder: Path) -> None:
    made = {"scalar": np.array(2.5), "empty": np.zeros((0, 3), np.int16), "turned": np.arange(6).reshape(2, 3).T}
    for _ in range(2):
        found = cache.kept("arrays", (), lambda: made)
        for name, array in made.items():
            np.testing.assert_array_equal(found[name], array)
            assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
