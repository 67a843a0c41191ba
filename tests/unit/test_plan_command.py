# SPDX-License-Identifier: Apache-2.0
"""`medyate plan`: what it says adds up, its alternatives and its frontier are real plans, its pictures are pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from conftest import DIGITNET, Cli
from medyate import datasets
from medyate.boards import BOARDS
from medyate.errors import BudgetError
from medyate.plan.budget import Limits
from medyate.stages import Material, Options, gather, silent
from medyate.strategies.candidates import by_lara
from medyate.strategies.cost import DEVICE
from medyate.strategies.problem import Problem


@pytest.fixture
def told(run_cli: Cli, small_digits: Path, ranking: Path) -> Any:
    """told(...): what `medyate plan digitnet ... --json` prints."""

    def call(*arguments: object) -> dict[str, Any]:
        ended = run_cli("plan", DIGITNET, "--data", small_digits, "--ranking", ranking, *arguments, "--json")
        assert ended.code == 0, ended.err
        content: dict[str, Any] = json.loads(ended.out)
        return content

    return call


@pytest.fixture(scope="module")
def material(small_digits: Path) -> Material:
    options = Options("host", Limits(0), rank_epochs=1)
    return gather(DIGITNET, datasets.load(str(small_digits)), options, silent)


@pytest.fixture(scope="module")
def ranking(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranking") / "ranking.json"
    path.write_text(json.dumps(material.ranking.to_json()))
    return path


def test_regions_fill_the_areas_of_the_board(told: Any) -> None:
    content = told("--board", "stm32f405")
    for area in BOARDS["stm32f405"].areas:
        assert sum(row["bytes"] for row in content["regions"] if row["area"] == area.name) == area.bytes
    used = {row["region"]: row for row in content["regions"] if row["region"] != "free"}
    assert [used[part]["bytes"] for part in ("planned", "epoch", "state")] == [
        content[f"{part}_bytes"] for part in ("planned", "epoch", "state")
    ]
    assert {part for area in content["areas"] for part in area["holds"]} == set(used)
    assert used["epoch"]["area"] != used["state"]["area"]


def test_the_peak_is_the_lower_bound_and_its_values_make_it(told: Any) -> None:
    content = told("--ram", "64KiB", "--schedule", "layer")
    peak, values = content["peak"], content["values"]
    assert peak["bytes"] == content["planned_lower_bound_bytes"] == max(group["bytes"] for group in content["groups"])
    alive = {v["name"]: v["bytes"] for v in values if v["first"] <= peak["group"] <= v["last"] and v["bytes"]}
    assert {v["name"]: v["bytes"] for v in peak["values"]} == alive
    assert sum(alive.values()) >= peak["bytes"]
    phases = [group["phase"] for group in content["groups"]]
    assert [p for n, p in enumerate(phases) if phases[n - 1 : n] != [p]] == ["forward", "head", "backward"]


def test_alternatives_are_what_plans_with_these_options_give(told: Any) -> None:
    wide = told("--ram", "64KiB", "--schedule", "layer", "--grad-bits", 16)
    layers = told("--ram", "64KiB", "--schedule", "layer")
    streams = told("--ram", "64KiB")

    def fixed(plan: dict[str, Any]) -> int:
        return -(-needed(plan) // 8) * 8 + int(plan["state_bytes"])

    def needed(plan: dict[str, Any]) -> int:
        """Without what is left over for kernels to work in."""
        return next(int(row["planned_bytes"]) for row in plan["table"] if row["k"] == len(plan["candidates"]))

    for here, change, there in ((wide, "--grad-bits 8", layers), (layers, "--schedule auto", streams)):
        found = {other["change"]: other for other in here["alternatives"]}
        assert [a["saved_bytes"] for a in found.values()] == sorted(
            (a["saved_bytes"] for a in found.values()), reverse=True
        )
        assert found[change]["planned_bytes"] == needed(there) <= there["planned_bytes"]
        assert found[change]["saved_bytes"] == fixed(here) - fixed(there)
    repeated = next(a for a in streams["alternatives"] if a["change"] == "--recompute auto")
    assert repeated["macs"] > 0


def test_the_frontier_starts_at_the_least_memory_that_trains(told: Any, material: Material, tmp_path: Path) -> None:
    content = told("--frontier", "-o", tmp_path)
    points = content["frontier"]
    least = content["smallest_ram_bytes"]
    assert points[0]["ram_bytes"] == least
    assert material.plan(Limits(least)).row is not None
    with pytest.raises(BudgetError):
        material.plan(Limits(least - 256))
    for point in (points[0], points[len(points) // 2], points[-1]):
        plan = material.plan(Limits(point["ram_bytes"]))
        assert plan.row is not None
        assert (point["layers"], point["b_mem_bytes"]) == (plan.row.layers, plan.row.b_mem_bytes)
    assert all(0 < point["expected_depth"] <= point["depth"] <= content["total_layers"] for point in points)
    assert points[-1]["layers"] == content["total_layers"]
    assert [p["ram_bytes"] for p in points] == sorted(p["ram_bytes"] for p in points)
    assert json.loads((tmp_path / "frontier.json").read_text())["frontier"] == points
    assert_pictures(tmp_path / "frontier")


def test_a_frontier_ends_where_ram_or_board_end(told: Any) -> None:
    assert told("--frontier", "--ram", "16KiB")["frontier"][-1]["ram_bytes"] == 16 * 1024


def test_a_folder_gets_the_plan_and_both_pictures(told: Any, tmp_path: Path) -> None:
    content = told("--board", "nrf52840", "-o", tmp_path, "--picture", tmp_path / "more.svg")
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept == {name: value for name, value in content.items() if name != "pictures"}
    assert_pictures(tmp_path / "memory")
    assert content["pictures"][-1] == str(tmp_path / "more.svg")
    assert (tmp_path / "more.svg").read_bytes() == (tmp_path / "memory.svg").read_bytes()


def assert_pictures(stem: Path) -> None:
    with Image.open(stem.with_suffix(".png")) as picture:
        assert picture.width >= 800
    assert ElementTree.parse(stem.with_suffix(".svg")).getroot().tag.endswith("svg")


@pytest.mark.parametrize("arguments", [("--board", "stm32h743"), ("--frontier", "--ram", "20KiB"), ("--ram", "24KiB")])
def test_people_read_it_too(run_cli: Cli, small_digits: Path, ranking: Path, arguments: tuple[str, ...]) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--ranking", ranking, *arguments)
    assert ended.code == 0, ended.err
    words = {
        "--board": ("SRAM4", "bank 1 at 0x081e0000"),
        "--ram": ("the peak is",),
        "--frontier": ("the smallest RAM in which",),
    }
    assert all(word in ended.out for word in words[arguments[0]])


@pytest.mark.parametrize("budget", [200, 600, 601, 2000, 5003])
def test_a_budget_takes_the_fewest_layers_that_the_rule_allows(told: Any, material: Material, budget: int) -> None:
    content = told("--ram", "1MiB", "--budget", f"{budget}")
    assert content["b_mem_bytes"] == budget // 4 * 4
    graph, weights = material.normal.graph, material.normal.weights
    wanted = by_lara(Problem(graph, weights, material.ranking, budget // 4 * 4, DEVICE))
    assert {c["layer"] for c in content["candidates"]} == {layer.layer for layer in wanted}


def test_a_budget_that_holds_no_channel_is_refused(run_cli: Cli, small_digits: Path, ranking: Path) -> None:
    for budget, words in (("8", "holds no channel"), ("0", "trains nothing"), ("much", "no size")):
        ended = run_cli("plan", DIGITNET, "--data", small_digits, "--ranking", ranking, "--budget", budget)
        assert ended.code == 2
        assert words in ended.err
