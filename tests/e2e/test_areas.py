# SPDX-License-Identifier: Apache-2.0
"""Regions in several RAM areas: the same integers, measured like planned, and no image where they do not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from medyate.boards import KIB, Area
from medyate.build.compile import build
from medyate.build.project import write_project
from medyate.emit.size import image_bytes
from medyate.errors import BudgetError
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan, inference_plan
from medyate.run.session import Digests, Training
from medyate.run.train import Compiled, connect, int8_samples, measure
from medyate.stages import Options, compile_model
from probe import Probe
from shared_files import ROOT, field_digits

DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
ONE = Limits(40 * KIB)
TWO = Limits(40 * KIB, areas=(Area("low", 0x20000000, 18 * KIB), Area("high", 0x10000000, 22 * KIB)))
STEPS = 12
ARENA = -2


def compiled(folder: Path, target: str, limits: Limits, ranking: Path | None) -> tuple[Compiled, Plan]:
    options = Options(target, limits, head="keep", rank_epochs=1, builder="make", ranking=ranking)
    plan, _ = compile_model(DIGITNET, field_digits(), options, folder)
    return Compiled.read(folder), plan


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compiled, Plan]:
    return compiled(tmp_path_factory.mktemp("one"), "host", ONE, None)


@pytest.fixture(scope="module")
def two(one: tuple[Compiled, Plan], tmp_path_factory: pytest.TempPathFactory) -> tuple[Compiled, Plan]:
    return compiled(tmp_path_factory.mktemp("two"), "qemu-m4", TWO, one[0].folder / "04_ranking.json")


def digests(image: Compiled, flash: Path) -> tuple[Digests, Digests]:
    """Before and after a commit."""
    samples, _ = int8_samples(image, field_digits())
    with connect(image, "host" if image.model["target"] == "host" else "qemu", flash, count=False) as session:
        session.begin(Training(0.02, 2, STEPS, flip=True, seed=3))
        for i in range(STEPS):
            session.train(samples[i], int(field_digits().y_train[i]))
        before = session.digests()
        session.commit()
        session.infer(samples[0])
        return before, session.digests()


def test_two_areas_train_the_same_integers_as_one(
    one: tuple[Compiled, Plan], two: tuple[Compiled, Plan], tmp_path: Path
) -> None:
    used = {area.name for area in two[1].assignment.area_of.values()}
    assert used == {"low", "high"}
    assert one[1].epoch_bytes == two[1].epoch_bytes  # the rule binds, not the memory
    here, there = digests(one[0], tmp_path / "one.bin"), digests(two[0], tmp_path / "two.bin")
    assert here == there
    assert here[0].deltas != 0


def test_every_region_is_measured_as_planned(two: tuple[Compiled, Plan]) -> None:
    image, plan = two
    samples, _ = int8_samples(image, field_digits())
    marks = measure(image, "qemu", samples[0])
    assert {"epoch": marks.epoch, "state": marks.state} == {name: plan.regions[name] for name in ("epoch", "state")}
    assert plan.layout.peak_bytes <= marks.planned <= plan.layout.planned_bytes
    assert 0 < marks.static - plan.arena_bytes <= image.plan["static_reserved_bytes"]


def test_an_image_is_not_larger_than_estimated(two: tuple[Compiled, Plan]) -> None:
    built = two[0].model["flash_bytes"]
    assert built <= image_bytes(two[1]) <= 1.25 * built


@pytest.mark.parametrize("builder", ["make", "platformio"])
def test_a_region_that_is_larger_than_its_area_does_not_link(
    two: tuple[Compiled, Plan], builder: str, tmp_path: Path
) -> None:
    _, plan = two
    project = tmp_path / "project"
    write_project(plan, project)
    link = project / "boards" / "common" / "qemu" / "link.ld"
    script = link.read_text()
    other = next(a for a in TWO.areas if a != plan.assignment.area_of["static"])
    assert f"LENGTH = {other.bytes}" in script
    link.write_text(script.replace(f"LENGTH = {other.bytes}", "LENGTH = 2048"))
    with pytest.raises(BudgetError, match="overflowed by"):
        build(plan, project, "qemu-m4", builder)


def test_a_region_that_is_short_or_misaligned_is_refused(one: tuple[Compiled, Plan], tmp_path: Path) -> None:
    init = Probe(one[1], tmp_path, record=False, flags=("-O0",)).lib.probe_init_with
    assert init(0, 0, 0) == 0
    for region in range(3):
        assert init(region, 0, 8) == ARENA
        assert init(region, 4, 0) == ARENA


def test_less_than_the_areas_may_be_allowed() -> None:
    free = TWO.assign(4000, 4000).left_bytes
    assert dataclasses.replace(TWO, ram_bytes=20 * KIB).assign(4000, 4000).left_bytes < free


@pytest.mark.parametrize("beyond", range(0, 3000, 344))
def test_room_for_kernels_is_that_of_the_planned_regions_area(two: tuple[Compiled, Plan], beyond: int) -> None:
    """An area that holds the planned region and little more: the room is that little, whatever others have."""
    qgraph, weights = two[1].qgraph, two[1].weights
    least = inference_plan(qgraph, weights, Limits(1 << 20), least=True).layout
    free = -(-least.peak_bytes // 8) * 8 + beyond // 8 * 8
    static = Limits(1).reserved_bytes
    areas = (Area("low", 0x20000000, free), Area("high", 0x10000000, static + 64))
    plan = inference_plan(qgraph, weights, Limits(free + static + 64, areas=areas), least=True)
    assert plan.assignment.left_bytes >= 0
    assert plan.layout.extra_bytes == min(least.extra_bytes, free - -(-least.peak_bytes // 8) * 8)
