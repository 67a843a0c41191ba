# SPDX-License-Identifier: Apache-2.0
"""Rankings say where they come from, and are compared. Costs 4 s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import DIGITNET, Cli
from medyate import __version__, frontends
from medyate.passes.pipeline import normalise
from medyate.rank.lara import Ranking


@pytest.fixture
def ranking(run_cli: Cli, small_digits: Path, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "a.json"
    ended = run_cli("rank", DIGITNET, "--data", small_digits, "--epochs", 1, "--seed", 4, "-o", path)
    assert ended.code == 0
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_ranking_says_where_it_comes_from(ranking: dict[str, Any], run_cli: Cli, tmp_path: Path) -> None:
    made = ranking["made"]
    assert {key: made[key] for key in ("epochs", "seed", "samples", "version")} == {
        "epochs": 1,
        "seed": 4,
        "samples": 120,
        "version": __version__,
    }
    graph = normalise(frontends.load(DIGITNET)).graph
    assert Ranking.from_json(ranking, graph).to_json() == ranking
    older = {key: value for key, value in ranking.items() if key != "made"}
    assert Ranking.from_json(older, graph).made is None
    again = tmp_path / "again.json"
    run_cli("rank", DIGITNET, "--data", "digits", "--epochs", 1, "--seed", 4, "-o", again)
    other = json.loads(again.read_text())["made"]
    assert other["data_digest"] != made["data_digest"]
    assert other["weights_digest"] == made["weights_digest"]


def test_rankings_are_compared(ranking: dict[str, Any], run_cli: Cli, tmp_path: Path) -> None:
    """The reversed order correlates with -1, a change of scale with 1."""
    layers = ranking["layers"]
    scores = sorted(layer["lara"] for layer in layers)
    turned = [{**layer, "lara": score} for layer, score in zip(layers, scores, strict=True)]
    scaled = [{**layer, "lara": 2 * layer["lara"], "trady": layer["trady"] ** 2} for layer in layers]
    for name, content in (("b", turned), ("c", scaled)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**ranking, "layers": content}))
    files = [tmp_path / f"{name}.json" for name in "abc"]
    picture = tmp_path / "picture.png"
    found = json.loads(run_cli("rank", "--compare", *files, "-o", picture, "--json").out)
    assert found["lara"] == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    assert found["trady"] == [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    trady = sorted((layer["trady"] for layer in layers), reverse=True)
    k = found["covering"][0]
    assert sum(trady[: k - 1]) < 0.97 * sum(trady) <= sum(trady[:k])
    with Image.open(picture) as drawn:
        assert len(drawn.convert("RGB").getcolors(1 << 24)) > 20
    assert "digitnet" in run_cli("rank", "--compare", *files).out


def test_rankings_that_cannot_be_compared_are_refused(ranking: dict[str, Any], run_cli: Cli, tmp_path: Path) -> None:
    first, other, damaged = (tmp_path / f"{name}.json" for name in ("a", "b", "c"))
    other.write_text(json.dumps({**ranking, "layers": ranking["layers"][1:]}))
    damaged.write_text(json.dumps({**ranking, "layers": [{"layer": "x"}]}))
    cases = (
        ((first,), "one ranking alone cannot be compared"),
        ((first, other), "different layers"),
        ((first, damaged), "damaged"),
        ((first, tmp_path / "none.json"), "does not exist"),
        ((first, first, "-o", tmp_path / "x.txt"), "no name of a picture"),
    )
    for arguments, words in cases:
        ended = run_cli("rank", "--compare", *arguments)
        assert (ended.code, words in ended.err) == (2, True), ended.err
    assert "needs one model" in run_cli("rank", DIGITNET, "-o", tmp_path / "r.json").err


def test_a_head_takes_the_place_of_nothing_else(run_cli: Cli, small_digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "digits.npz"
    data.write_bytes(small_digits.read_bytes())
    for name in ("digits.json", "digits.npz"):
        ended = run_cli("rank", DIGITNET, "--data", data, "--epochs", 1, "-o", tmp_path / name)
        assert ended.code == 2 and "npz" in ended.err
    assert data.read_bytes() == small_digits.read_bytes()
    for _ in range(2):
        assert run_cli("rank", DIGITNET, "--data", data, "--epochs", 1, "-o", tmp_path / "own.json").code == 0
    assert list(np.load(tmp_path / "own.npz")) == ["head"]
