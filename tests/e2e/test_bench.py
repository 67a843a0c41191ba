# SPDX-License-Identifier: Apache-2.0
"""`medyate bench`: exact, repeatable counts whose layers add up, and no build that takes more than the table says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench_table import COMMAND, TABLE, compiled, compiler, counts, differences
from conftest import DIGITNET, Cli
from medyate import artefact, datasets
from medyate.bench import counter
from medyate.bench.measure import bench
from medyate.bench.phases import PHASES
from medyate.boards import MACHINES
from medyate.plan.budget import Limits
from medyate.run.train import Compiled
from medyate.stages import Options, compile_model
from programs import program

TARGET = "qemu-m7"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network for one target."""
    return compiled(TARGET, tmp_path_factory.mktemp("bench") / "out").folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    """Its counts."""
    return bench(Compiled.read(folder), datasets.load("digits"))


def assert_adds_up(result: dict[str, Any]) -> None:
    """Layers and the rest are the total, and nearly all of it is a layer's: a sample's way in takes 100,000 at most."""
    for phase in PHASES:
        layers = [row for row in result["layers"] if row["phase"] == phase]
        assert sum(row["instructions"] for row in layers) + result[phase]["other"] == result[phase]["instructions"]
        assert sum(row["macs"] for row in layers) == (result[phase]["macs"] or 0)
        most = max(100_000, 0.02 * result[phase]["instructions"])
        assert phase == "commit" or 0 <= result[phase]["other"] < most


def assert_as_in_the_table(target: str, result: dict[str, Any]) -> None:
    table = artefact.read_json(TABLE)
    here, there = (version.partition(".")[0] for version in (compiler(), table["compiler"]))
    if here != there:
        pytest.skip(f"the table is of arm-none-eabi-gcc {there}, here is {here}")
    found = differences(target, counts(result), table["counts"][target])
    assert not found, "\n".join(found)


def test_the_build_takes_no_more_than_the_table_says(result: dict[str, Any]) -> None:
    assert_adds_up(result)
    assert_as_in_the_table(TARGET, result)


@pytest.mark.parametrize("target", [target for target in MACHINES if target != TARGET])
def test_no_other_build_does(target: str, run_cli: Cli) -> None:
    options = ("--data", "digits", "--ram", "24KiB", "--target", target, "--builder", "make")
    ended = run_cli("bench", DIGITNET, *options, "--json")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["target"], result["samples"], result["no_layers"]) == (target, "digits", None)
    assert_adds_up(result)
    assert_as_in_the_table(target, result)


def test_what_a_difference_says() -> None:
    known = dict.fromkeys(PHASES, 1_000_000)
    assert differences("qemu-m7", {**known, "commit": 1_009_000}, known) == []
    (grown,) = differences("qemu-m7", {**known, "inference": 1_011_000}, known)
    assert grown.startswith("inference on qemu-m7: 1,000,000 instructions became 1,011,000 (+1.1%). It grew")
    (lower,) = differences("qemu-m7", {**known, "training_step": 900_000}, known)
    assert "lowering it is part of the change" in lower
    assert COMMAND in grown and COMMAND in lower


def test_layers_and_directions(result: dict[str, Any]) -> None:
    rows = {(row["phase"], row["name"], row["direction"]): row for row in result["layers"]}
    assert len(rows) == len(result["layers"])
    forward = [row for row in result["layers"] if row["direction"] == "forward"]
    names = {phase: [row["name"] for row in forward if row["phase"] == phase] for phase in PHASES}
    assert names["inference"] == names["training_step"]
    assert names["inference"][0] == "/stem/stem.0/Conv" and names["inference"][-1] == "head"
    stem = rows["inference", "/stem/stem.0/Conv", "forward"]
    assert (stem["op"], stem["macs"], stem["weight_bytes"]) == ("conv2d", 8 * 8 * 16 * 9, 16 * 9 + 4 * 16)
    assert stem["instructions_per_mac"] == pytest.approx(stem["instructions"] / stem["macs"], abs=1e-4)
    assert any(row["name"] == "/blocks/blocks.1/Add" for row in forward)  # of the stream
    chosen = next(iter(result["selected"].items()))
    update = rows["training_step", chosen[0], "update"]
    assert update["macs"] * 16 == chosen[1] * rows["training_step", chosen[0], "forward"]["macs"]
    assert ("training_step", "head", "update") in rows
    low, high = result["estimate"]["cycles"]["inference"]
    assert 0.5 * result["inference"]["instructions"] < low < high < 2 * result["inference"]["instructions"]


def test_counts_are_the_same_again_and_the_timer_agrees(
    folder: Path, result: dict[str, Any], run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_cli("bench", folder, "--data", "digits", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == result
    monkeypatch.setenv("CC", "false")
    monkeypatch.setenv("MEDYATE_CACHE", str(tmp_path))
    ended = run_cli("bench", folder, "--data", "digits", "--json", "-o", tmp_path / "none.svg")
    assert ended.code == 0
    assert "layers and the commit are not counted" in ended.err
    assert "cannot be built" in ended.err
    timed = json.loads(ended.out)
    assert timed["layers"] == [] and timed["commit"]["instructions"] is None
    for phase in ("inference", "training_step"):  # in ticks of 40 instructions, with the calls that read the timer
        assert timed[phase]["instructions"] == pytest.approx(result[phase]["instructions"], abs=120)
    assert run_cli("bench", folder).code == 0


def test_table_picture_and_comparison(folder: Path, result: dict[str, Any], run_cli: Cli, tmp_path: Path) -> None:
    ended = run_cli("bench", folder, "-o", tmp_path / "bars.svg")
    assert ended.code == 0, ended.err
    for words in ("training step", "back_input", "cycles, estimate", "samples: noise", "no board was measured"):
        assert words in ended.out
    assert (tmp_path / "bars.svg").read_text().count("<path") > 50
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(result))
    changed = json.loads(first.read_text())
    changed["layers"] = changed["layers"][1:]
    changed["inference"]["instructions"] *= 2
    changed["commit"]["instructions"] = None
    second.write_text(json.dumps(changed))
    ended = run_cli("bench", "--compare", first, second, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [found[phase]["ratio"] for phase in PHASES] == [2.0, 1.0, None]
    assert [row["ratio"] for row in found["layers"][:2]] == [None, 1.0]
    ended = run_cli("bench", "--compare", first, second)
    assert "2.000" in ended.out and "no board was measured" in ended.out


@pytest.mark.long
@pytest.mark.parametrize(
    ("limits", "direction"),
    [
        (Limits(19 << 10, min_elements=6500, recompute="auto"), "forward_again"),
        (Limits(24 << 10, sample="rows", recompute="auto", batch=4), "load"),
    ],
    ids=["again", "rows"],
)
def test_repetitions_rows_and_batches(limits: Limits, direction: str, tmp_path: Path) -> None:
    compile_model(DIGITNET, datasets.load("digits"), Options(TARGET, limits, builder="make"), tmp_path)
    result = bench(Compiled.read(tmp_path), datasets.load("digits"))
    assert result["no_layers"] is None
    assert_adds_up(result)
    assert direction in {row["direction"] for row in result["layers"]}


def test_the_plugin_compiles_without_a_warning(tmp_path: Path) -> None:
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Werror")
    command = [program("cc"), *counter.FLAGS, *warnings, str(counter.SOURCE), "-o", str(tmp_path / "counter.so")]
    subprocess.run(command, check=True)


def test_mistakes(folder: Path, run_cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"network": "x", "target": "qemu-m7", "layers": [{}]}))
    host = shutil.copytree(folder, tmp_path / "host")
    artefact.write_json(host / "model.json", {**artefact.read_json(host / "model.json"), "target": "host"})
    other = shutil.copytree(folder, tmp_path / "other")
    graph = json.loads((other / "03_quantised.json").read_text())
    graph["nodes"][0]["name"] = "someone"
    (other / "03_quantised.json").write_text(json.dumps(graph))
    for arguments, words in (
        ((), "nothing is given to count"),
        ((folder, "--compare", broken, broken), "a comparison counts nothing"),
        (("--compare", broken, broken), "is damaged, or of another version"),
        (("--compare", tmp_path / "none.json", broken), "does not exist"),
        ((folder, "--target", "qemu-m4"), "was compiled for qemu-m7"),
        ((folder, "--ram", "24KiB"), "is compiled already"),
        ((folder, "-o", "bars.gif"), "is no name of a picture"),
        ((host,), "no instructions are counted"),
        ((DIGITNET,), "a model is compiled for some data"),
        ((DIGITNET, "--data", "digits", "--target", "host"), "--target 'host' is unknown"),
        ((tmp_path / "none.onnx", "--data", "digits"), "does not exist"),
        ((other,), "do not fit each other"),
    ):
        ended = run_cli("bench", *arguments)
        assert ended.code == 2 and words in ended.err, (arguments, ended)
        assert "Traceback" not in ended.err and ended.out == ""
    ended = run_cli("bench", DIGITNET, "--data", "digits", "--ram", "4KiB")
    assert ended.code == 2 and "--ranking" not in ended.err  # the folder is gone


def test_code_that_was_edited_has_no_layers(folder: Path, tmp_path: Path, run_cli: Cli) -> None:
    edited = shutil.copytree(folder, tmp_path / "out")
    source = edited / "project" / "src" / "mdy_model.c"
    source.write_text(source.read_text().replace("static void forward", "\n\nstatic void forward"))
    ended = run_cli("bench", edited, "--json")
    assert ended.code == 0
    assert "layers and the commit are not counted" in ended.err
    assert json.loads(ended.out)["inference"]["instructions"] > 0
