# SPDX-License-Identifier: Apache-2.0
"""The emulated parts behind fast lines, bad lines and a terminal: the same integers, and nothing lost unseen."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boards.attached import Attached
from boards.served import served
from boards.trained import FRESH, RESUME, Pair, committed
from chips import CHIPS
from conftest import Cli
from medyate.run.train import Compiled
from medyate.selftest import Options, selftest
from shared_files import some_long

FAST = 921600
BAUDS = (115200, FAST)
BY_WALL_CLOCK = "time of a commit"
"""As the host waits, which says nothing of a part that is emulated on a busy machine."""
BAD = (0.0, 0.001, 0.01)
LINES = [(name, baud, bad) for name in CHIPS for baud in BAUDS for bad in BAD if baud == FAST or bad > 0.0]


@pytest.fixture(scope="session")
def fast(pairs: Callable[[str], Pair]) -> Callable[[str], Path]:
    """A chip's image whose UART is fast; each made once, beside the other."""

    def image(name: str) -> Path:
        project = pairs(name).chip.folder / "project"
        flags = f"ARM_CFLAGS=-O3 -funroll-loops -DMDY_BAUD={FAST}U"
        subprocess.run(["make", "-s", name, "BUILD=fast", flags], cwd=project, check=True, capture_output=True)
        return project / "fast" / name / "firmware.elf"

    return image


def takes_long(case: tuple[str, int, float]) -> bool:
    return case != ("stm32f405", FAST, 0.01)


@pytest.mark.parametrize(("name", "baud", "bad"), some_long(LINES, takes_long))
def test_a_part_trains_the_same_behind_any_line(
    name: str, baud: int, bad: float, pairs: Callable[[str], Pair], fast: Callable[[str], Path]
) -> None:
    pair = pairs(name)
    board = Attached(name, fast(name) if baud == FAST else pair.chip.image, baud, bad)
    for number, right in enumerate(pair.right):
        session = board.power_on()
        assert session.begin(RESUME if number else FRESH).generation == number
        assert committed(session, pair.chip, number) == (right.losses, right.done)
    assert (board.line.damaged > 0) == (bad > 0.0)
    assert not board.machine.refusals
    assert board.machine.resets == 0


@pytest.fixture(scope="session")
def few_digits(small_digits: Path) -> Path:
    """One image of each digit to train and one to test: the parts are slow here."""
    with np.load(small_digits) as small:
        few = {
            name: small[name][::step]
            for step, part in ((12, "train"), (4, "test"))
            for name in (f"x_{part}", f"y_{part}")
        }
    path = small_digits.with_name("few.npz")
    np.savez(path, **few)
    return path


@pytest.mark.parametrize("name", some_long(CHIPS, lambda name: name != "stm32f405"))
def test_the_self_test_passes_on_a_part_behind_a_terminal(
    name: str, pairs: Callable[[str], Pair], tmp_path: Path
) -> None:
    """Its link is closed: its owner has to press the button. The line waits for the part, which is slow here."""
    chip = pairs(name).chip
    pressed: list[str] = []
    with served(name, chip.image) as part:

        def press(text: str) -> None:
            pressed.append(text)
            part.process.send_signal(signal.SIGHUP)

        result = selftest(chip, Options(part.on, tell=press))
    odd = [(check["name"], check["said"]) for check in result["checks"] if not check["passed"]]
    assert [name for name, _ in odd if name != BY_WALL_CLOCK] == [], odd
    assert len(result["checks"]) == 10
    assert len(pressed) == 1
    assert part.report["refusals"] == {}
    assert part.report["resets"] == 1


@pytest.mark.parametrize("name", some_long(CHIPS, lambda name: name != "stm32f405"))
def test_a_whole_run_on_a_part_behind_a_terminal(
    name: str, pairs: Callable[[str], Pair], few_digits: Path, tmp_path: Path, run_cli: Cli
) -> None:
    chip = pairs(name).chip
    host = Compiled.read(chip.folder.parent / "host")
    options = ("--data", few_digits, "--epochs", 2, "--rate", 0.02, "--limit", 4, "--no-measure", "--json")
    with served(name, chip.image) as part:
        there = run_cli("run", chip.folder, *options, "--on", part.on, "--log", tmp_path / "there.json")
    here = run_cli("run", host.folder, *options, "--flash", tmp_path / "cells", "--log", tmp_path / "here.json")
    assert (there.code, here.code) == (0, 0), there.err + here.err

    one, other = json.loads(there.out), json.loads(here.out)
    for key in ("digest", "history", "accuracy_after"):
        assert one[key] == other[key], key
    assert one["ms_per_step"] > 0
    assert part.report["refusals"] == {}
    assert part.report["programs"] > 0
