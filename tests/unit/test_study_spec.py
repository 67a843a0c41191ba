# SPDX-License-Identifier: Apache-2.0
"""A study's file: what its grid makes, what is refused. Costs under 1 s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Cli
from medyate.errors import ArtefactError, DataError
from medyate.study.spec import Cell, read
from medyate.study.store import Store, writing
from shared_files import ROOT

GRID = """
name = "small"
epochs = 4
[grid]
network = ["net.onnx"]
data = ["digits"]
strategy = ["medyate", "head", {name = "medyate", boost = "lara"}]
budget = [1000, 2000]
seed = [0, 1]
rate = [0.01]
alpha = [0.1, 0.2]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_a_grid_has_a_cell_for_every_difference_that_matters(tmp_path: Path) -> None:
    study = read(written(tmp_path, GRID))
    labels = [cell.label for cell in study.cells]
    assert labels.count("head") == 2  # neither budget nor alpha changes it: one for each seed
    assert labels.count("medyate (alpha=0.1)") == labels.count("medyate (alpha=0.2, boost=lara)") == 4
    assert len(labels) == 2 + 4 * 4
    assert len({cell.key for cell in study.cells}) == len(labels)
    assert len(study.rankings) == 1
    assert [Cell.from_json(cell.to_json()) for cell in study.cells] == list(study.cells)


def test_a_larger_grid_keeps_the_keys_of_the_smaller_one(tmp_path: Path) -> None:
    small = {cell.key for cell in read(written(tmp_path, GRID)).cells}
    large = {cell.key for cell in read(written(tmp_path, GRID.replace("[0, 1]", "[0, 1, 2]"))).cells}
    longer = {cell.key for cell in read(written(tmp_path, GRID.replace("epochs = 4", "epochs = 5"))).cells}
    assert small < large
    assert not small & longer


def test_contrasts_are_no_part_of_a_cell(tmp_path: Path) -> None:
    plain = read(written(tmp_path, GRID))
    asking = read(written(tmp_path, 'contrasts = [["head", "medyate (alpha=0.1)"]]' + GRID))
    assert (asking.contrasts, plain.contrasts) == ((("head", "medyate (alpha=0.1)"),), ())
    assert asking.cells == plain.cells


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 4", 'contrasts = [["medyate", "head"]]', "names 'medyate'"),
        ("epochs = 4", 'contrasts = [["head"]]', "no list of pairs"),
        ("epochs = 4", 'contrasts = [["head", 4]]', "names '4'"),
        ("epochs = 4", 'contrasts = "head"', "no list of pairs"),
        ("epochs = 4", "epochs = 0", "warm-up"),
        ("epochs = 4", "epochs = 4.5", "is no int"),
        ("epochs = 4", "epoch = 4", "sets 'epoch'"),
        ("epochs = 4", 'engine = "gpu"', "engine 'gpu'"),
        ("epochs = 4", 'engine = "device"\nlimit = -1', "below zero"),
        ('"head"', '"heads"', "no strategy 'heads'"),
        ('boost = "lara"', 'boots = "lara"', "'boots' is no setting"),
        ('boost = "lara"', 'boost = "lara2"', "boost 'lara2'"),
        ('{name = "medyate", boost', '{name = "head", boost', "'head' has no setting 'boost'"),
        ("budget = [1000, 2000]", "", "needs a budget"),
        ("budget = [1000, 2000]", "budget = [1.5]", "needs a budget"),
        ("seed = [0, 1]", "seed = [-1]", "seed"),
        ("seed = [0, 1]", "seeds = [1]", "no axis 'seeds'"),
        ("rate = [0.01]", "rate = 0.01", "rate is no list"),
        ("alpha = [0.1, 0.2]", "alpha = [2.0]", "outside (0, 1]"),
        ("[grid]", "[grid", "no TOML"),
        ('name = "small"', "name = 3", "needs a name"),
        ("epochs = 4", 'norm = "mean"', "norm 'mean'"),
        ("epochs = 4", 'fit = "squeeze"', "fit 'squeeze'"),
        ("epochs = 4", "clip = -1.0", "clip of -1"),
        ("epochs = 4", "clip = 1e9", "no norm from"),
        ("epochs = 4", "step_instructions = 5", "counts no step_instructions"),
        ("epochs = 4", 'cost = "ram"', "float engine has no RAM"),
        ("epochs = 4", 'engine = "device"\ncost = "paper"', "budgets are bytes"),
        ("epochs = 4", 'engine = "device"\nnorm = "last"', "norm and fit"),
        ("alpha = [0.1, 0.2]", "batch = []", "batch is no list"),
        ("alpha = [0.1, 0.2]", "batch = [0]", "batch"),
        ('["digits"]', '[{path = "digits", epochs = 0}]', "warm-up"),
        ('["digits"]', '[{path = "digits", cost = "device"}]', "the same for the whole study"),
        ('["digits"]', "[{limit = 3}]", "data"),
        ('["net.onnx"]', '[{path = "net.onnx", budget = 5}]', "no list"),
    ],
)
def test_mistakes_are_named(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in GRID
    with pytest.raises(DataError) as refused:
        read(written(tmp_path, GRID.replace(old, new)))
    assert words in str(refused.value)


def test_the_device_engine_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    text = GRID.replace("epochs = 4", 'epochs = 4\nengine = "device"').replace('"head"', '"prob-raw"')
    with pytest.raises(DataError, match="on the device 'prob-raw' does not run with cost"):
        read(written(tmp_path, text))


def test_networks_have_own_budgets_data_own_facts_and_facts_can_vary(tmp_path: Path) -> None:
    text = GRID.replace('["net.onnx"]', '["net.onnx", {path = "big.onnx", budget = [7]}]')
    text = text.replace('["digits"]', '["digits", {path = "more", epochs = 9, limit = 5}]')
    study = read(written(tmp_path, text.replace("alpha = [0.1, 0.2]", 'norm = ["squares", "last"]\nbatch = [1, 8]')))
    budgets = {name: {c.budget for c in study.cells if c.network == name} for name in ("net.onnx", "big.onnx")}
    assert budgets == {"net.onnx": {0, 1000, 2000}, "big.onnx": {0, 7}}
    for cell in study.cells:
        facts, varied = cell.facts, dict(cell.varied)
        assert (facts.epochs, facts.limit) == ((9, 5) if cell.data == "more" else (4, 0))
        assert (facts.norm, facts.batch) == (varied["norm"], varied["batch"])
        assert cell.fixed.epochs == 4
        assert Cell.from_json(cell.to_json()) == cell
    assert {cell.label for cell in study.cells if cell.strategy == "head"} == {
        f"head (batch={batch}, norm={norm})" for batch in (1, 8) for norm in ("squares", "last")
    }
    assert len({cell.key for cell in study.cells}) == len(study.cells) == 2 * 2 * 4 * (2 * 2 + 1 + 1 * 2 + 1)


def test_what_varies_is_no_data_sets_own(tmp_path: Path) -> None:
    text = GRID.replace('["digits"]', '[{path = "digits", limit = 5}]').replace("alpha = [0.1, 0.2]", "limit = [7, 8]")
    with pytest.raises(DataError, match="'limit' is both an axis and set for one data set"):
        read(written(tmp_path, text))


def test_a_key_is_of_facts_however_they_are_given(tmp_path: Path) -> None:
    fixed = read(written(tmp_path, GRID.replace("epochs = 4", "epochs = 4\nclip = 0.5")))
    varied = read(written(tmp_path, GRID.replace("alpha =", "clip = [0.5]\nalpha =")))
    assert [cell.key for cell in fixed.cells] == [cell.key for cell in varied.cells]


def test_rankings_take_their_own_number_of_samples(tmp_path: Path) -> None:
    text = GRID.replace("epochs = 4", "epochs = 4\nlimit = 8\nrank_limit = 99")
    assert [job.samples.limit for job in read(written(tmp_path, text)).rankings] == [99]


@pytest.mark.parametrize("path", sorted((ROOT / "tools" / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_the_committed_studies_can_be_read(path: Path) -> None:
    assert read(path).cells


def test_a_result_is_stored_once_and_a_failure_gives_way(tmp_path: Path) -> None:
    cell = read(written(tmp_path, GRID)).cells[0]
    with writing(tmp_path / "r.sqlite") as store:
        store.add(cell, None, "no memory")
        assert store.done() == set()
        assert store.failures() == [(cell, "no memory")]
        store.add(cell, {"accuracy": 0.5}, None)
        store.add(replace(cell, seed=9), {"accuracy": 0.7}, None)
        assert store.results() == [(cell, {"accuracy": 0.5}), (replace(cell, seed=9), {"accuracy": 0.7})]
        assert store.failures() == []


def test_only_one_process_writes(tmp_path: Path) -> None:
    with (
        writing(tmp_path / "r.sqlite"),
        pytest.raises(ArtefactError, match="another study"),
        writing(tmp_path / "r.sqlite"),
    ):
        pass


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "r.sqlite").write_text("not a database, but long enough to look like one" * 20)
    with pytest.raises(ArtefactError, match="no readable result file"):
        Store(tmp_path / "r.sqlite", create=True)
    assert run_cli("study", tmp_path / "none.toml").code == 2
    assert "cannot be read" in run_cli("study", tmp_path / "none.toml").err
