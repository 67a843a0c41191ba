# SPDX-License-Identifier: Apache-2.0
"""A study loses nothing and runs nothing twice: killed itself, with a killed process, with a killed machine.

Costs 50 s, a third of it for the cluster: every process starts PyTorch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from conftest import DIGITNET, REPOSITORY, Cli
from medyate import frontends
from medyate.passes.pipeline import normalise
from medyate.rank.lara import channel_costs
from medyate.study import cluster, local, spec
from medyate.study.job import Outcome, Work, rank_work, work
from medyate.study.run import Summary, run
from medyate.study.store import Store

SPEC = """
name = "small"
epochs = 4
batch = 8
rank_epochs = 1
[grid]
network = ["{network}"]
data = ["{data}"]
strategy = ["medyate", "trady", "velocity", "head"]
budget = [2000]
seed = [0, 1]
rate = [0.02]
"""


@pytest.fixture
def study(small_digits: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SPEC.format(network=DIGITNET, data=small_digits))
    return path


@pytest.fixture
def path_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "compiler"))


def stored(db: Path) -> dict[str, tuple[str, int]]:
    """(result, runs) by key."""
    try:
        connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
        rows = connection.execute("SELECT key, result, runs FROM results").fetchall()
        connection.close()
    except sqlite3.OperationalError:  # not there yet
        return {}
    return {key: (result, runs) for key, result, runs in rows}


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in listed]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def until(condition: object, seconds: float = 300.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


@pytest.mark.usefixtures("path_for_workers")
def test_a_killed_study_goes_on_where_it_was(study: Path, tmp_path: Path, run_cli: Cli) -> None:
    db = tmp_path / "r.sqlite"
    command = [sys.executable, "-m", "medyate.cli", "study", str(study), "--db", str(db)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(stored(db)) >= 2)
    processes = children(process.pid)
    process.kill()
    process.wait()
    before = stored(db)
    assert processes
    until(lambda: not any(map(alive, processes)))
    assert 2 <= len(before) < 8

    ended = run_cli("study", study, "--db", db, "--json")
    assert ended.err == ""
    summary = json.loads(ended.out)
    assert summary == {"db": str(db), "cells": 8, "before": len(before), "failed": []}
    after = stored(db)
    assert len(after) == 8
    assert {key: after[key] for key in before} == before
    assert all(runs == 1 for _, runs in after.values())
    assert json.loads(run_cli("study", study, "--db", db, "--json").out)["before"] == 8
    assert stored(db) == after


def here(path: Path, db: Path) -> Summary:
    """The study in this process."""
    return run(spec.read(path), db, lambda wanted: map(work, wanted), lambda *_: None)


def jobs(path: Path) -> list[Work]:
    """The study's cells with their ranking."""
    read = spec.read(path)
    ranking = work(rank_work(read.rankings[0])).result
    return [Work(cell.key, cell.to_json(), None, ranking) for cell in read.cells]


def accuracies(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    return {outcome.key: outcome.result["accuracies"] for outcome in outcomes if outcome.result}


def test_a_process_that_dies_is_replaced(study: Path) -> None:
    wanted = jobs(study)[:5]
    running: Iterator[Outcome] = local.run(wanted, 2)
    outcomes = [next(running)]
    victim = multiprocessing.active_children()[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    outcomes += running
    assert sorted(outcome.key for outcome in outcomes) == sorted(job.key for job in wanted)
    assert accuracies(outcomes) == accuracies([work(job) for job in wanted])


@pytest.mark.usefixtures("path_for_workers")
def test_a_cluster_goes_on_when_a_machine_is_lost(study: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3}
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick})
    try:
        first, _ = (machines.add_node(num_cpus=1) for _ in range(2))
        machines.wait_for_nodes()
        wanted = jobs(study)
        running = cluster.run(wanted, machines.address)
        outcomes = [next(running)]
        machines.remove_node(first, allow_graceful=False)
        outcomes += running
    finally:
        ray.shutdown()
        machines.shutdown()
    assert sorted(outcome.key for outcome in outcomes) == sorted(job.key for job in wanted)
    assert accuracies(outcomes) == accuracies([work(job) for job in wanted])


def test_a_cell_that_fails_says_why_and_is_tried_again(study: Path, tmp_path: Path, run_cli: Cli) -> None:
    db = tmp_path / "r.sqlite"
    study.write_text(study.read_text().replace("budget = [2000]", "budget = [1, 2000]").replace("[0, 1]", "[0]"))
    ended = run_cli("study", study, "--db", db, "--json")
    assert (ended.code, len(json.loads(ended.out)["failed"])) == (1, 2)
    store = Store(db, create=False)
    assert all("holds no channel" in error for _, error in store.failures())
    store.close()
    assert run_cli("study", study, "--db", db).code == 1
    assert sorted(runs for _, runs in stored(db).values())[-2:] == [2, 2]
    report = run_cli("study", "report", study, "--db", db, "-o", tmp_path / "out")
    assert report.code == 0
    assert "holds no channel" in (tmp_path / "out" / "report.md").read_text()


def test_the_device_engine_trains_the_integer_twin(small_digits: Path, tmp_path: Path, run_cli: Cli) -> None:
    path = tmp_path / "twin.toml"
    text = SPEC.format(network=DIGITNET, data=small_digits)
    for old, new in (
        ("batch = 8", 'engine = "device"'),
        ('"trady", "velocity"', '"lara-trady", "trady", {name = "su", scheme = "s.json"}'),
        ("[0, 1]", "[0]"),
        ("2000", "24576"),
        ("epochs = 4", "epochs = 2"),
    ):
        text = text.replace(old, new)
    path.write_text(text)
    layer = channel_costs(normalise(frontends.load(DIGITNET)).graph).popitem()[0]
    (tmp_path / "s.json").write_text(json.dumps({"channels": {layer: 7}}))
    db = tmp_path / "r.sqlite"
    assert not here(path, db).failed
    store = Store(db, create=False)
    results = {cell.label: result for cell, result in store.results()}
    store.close()
    assert {label.split()[0] for label in results} == {"medyate", "lara-trady", "trady", "su", "head"}
    assert results["medyate"]["k"] > 0
    assert 0 < results["medyate"]["b_mem_bytes"] < 24576
    assert results["su (scheme=s.json)"]["k"] == 1
    assert len({result["digest"] for result in results.values()}) == 5
    assert run_cli("study", "report", path, "--db", db, "-o", tmp_path / "out").code == 0
    assert "bytes of RAM" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:x", "127.0.0.1:99999999"])
def test_a_cluster_that_does_not_answer_is_named(address: str, study: Path, tmp_path: Path, run_cli: Cli) -> None:
    ended = run_cli("study", study, "--db", tmp_path / "r.sqlite", "--cluster", address)
    assert (ended.code, f"no Ray cluster answers at '{address}'" in ended.err) == (2, True)


def test_rankings_that_fail_take_their_cells_along(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace(str(DIGITNET), "none.onnx"))
    summary = here(study, tmp_path / "r.sqlite")
    assert len(summary.failed) == summary.cells == 8


def test_a_scheme_is_measured_and_studied(small_digits: Path, study: Path, tmp_path: Path, run_cli: Cli) -> None:
    parts = dict(np.load(small_digits))
    turned = {name: 255 - part if name.startswith("x") else part for name, part in parts.items()}
    np.savez(tmp_path / "turned.npz", **turned)  # black on white: there is something to learn
    path = tmp_path / "scheme.json"
    given = ("--data", tmp_path / "turned.npz", "--budget", 2000, "--rate", 0.05, "--batch", 8)
    assert run_cli("study", "scheme", DIGITNET, *given, "-o", path).code == 0
    found = json.loads(path.read_text())
    best = max(found["contributions"], key=lambda entry: entry["accuracy"])
    assert best["accuracy"] > 0
    assert len(found["contributions"]) > 40
    assert found["channels"]
    text = study.read_text().replace('"medyate", "trady", "velocity", "head"', '{name = "su", scheme = "scheme.json"}')
    study.write_text(text)
    assert not here(study, tmp_path / "r.sqlite").failed
    store = Store(tmp_path / "r.sqlite", create=False)
    trained = [result for cell, result in store.results() if cell.strategy == "su"]
    store.close()
    assert len(trained) == 2
    assert all(0 < r["weights"][0] + r["activations"][0] <= 2000 for r in trained)
    path.write_text(json.dumps({**found, "channels": {"other": 3}}))
    study.write_text(study.read_text().replace("[0, 1]", "[5]"))
    assert len(here(study, tmp_path / "r.sqlite").failed) == 1
