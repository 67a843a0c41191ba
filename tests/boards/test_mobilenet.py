# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2-w0.35 at 128 x 128 on the chips that have room: three training steps and a commit, as on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from boards.attached import Attached
from chips import limits
from medyate import datasets
from medyate.boards import BOARDS
from medyate.datasets import Dataset
from medyate.run.session import Digests, Session, Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import Options, compile_model
from shared_files import shared

RAM = {"stm32f405": 184, "stm32f746": 320, "stm32h743": 512}
"""KiB: of the F405 all but what the two areas leave unused at their ends."""
STEPS = 3
TRAINING = Training(0.02, 1, STEPS, "constant", seed=3, flip=True)


@cache
def flowers() -> Dataset:
    return datasets.load(str(shared("data/flowers17")), 0.25)


def epoch(session: Session, image: Compiled) -> tuple[list[float], Digests]:
    """Losses of some steps, and the digests behind their commit."""
    samples, _ = int8_samples(image, flowers())
    session.begin(TRAINING)
    losses = [session.train(samples[60 * i], int(flowers().y_train[60 * i])).loss for i in range(STEPS)]
    session.commit()
    return losses, session.digests()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Compiled, Compiled]]:
    """(for the chip, for this machine) by the chip's name; the network is ranked once."""
    rankings: list[Path] = []

    def made(name: str, target: str) -> Compiled:
        folder, board = tmp_path_factory.mktemp(f"{name}_{target}"), BOARDS[name]
        within = replace(limits(board), ram_bytes=RAM[name] * 1024)
        ranking = rankings[0] if rankings else None
        options = Options(target, within, rank_epochs=1, builder="make", ranking=ranking, board=board)
        model = shared("models/derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx")
        compile_model(model, flowers(), options, folder)
        rankings.append(folder / "04_ranking.json")
        return Compiled.read(folder)

    return lambda name: (made(name, name), made(name, "host"))


@pytest.mark.long
@pytest.mark.parametrize("name", RAM)
def test_mobilenet_trains_and_commits_on_a_part_as_on_the_host(
    name: str, images: Callable[[str], tuple[Compiled, Compiled]], tmp_path: Path
) -> None:
    chip, host = images(name)
    assert chip.model["digest"] == host.model["digest"]
    assert len(chip.plan["candidates"]) > 20
    with connect(host, "host", tmp_path / "flash.bin") as session:
        right = epoch(session, host)
    board = Attached(name, chip.image)
    session = board.power_on()
    before = board.cells.typical_us
    assert epoch(session, chip) == right
    assert right[1].deltas != 0
    bank = chip.model["banks"]["banks"][session.position.bank]
    assert (board.cells.typical_us - before) / 1000 == pytest.approx(bank["commit_ms"], rel=0.01)
    marks = session.marks()
    assert marks.static + marks.stack <= RAM[name] * 1024
    assert marks.stack <= chip.model["stack_bound_bytes"]
    assert not board.machine.refusals
    assert board.machine.resets == 0
