# SPDX-License-Identifier: Apache-2.0
"""Learn by button on an emulated STM32F405: it commits to the part's flash while no button is down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from apps import COMMITTED, NO_LABEL, READY, Shown, Turn, looked_at, on_host, shown, taught
from boards.attached import SECONDS, Attached
from chips import limits
from medyate import datasets
from medyate.boards import BOARDS
from medyate.run.train import Compiled
from medyate.stages import Options, compile_model
from tiny import compile_tiny, samples_of

NAME = "stm32f405"
PRESSES, LOOKS, COMMIT_STEPS = 40, 24, 32


def learning(folder: Path, target: str, ranking: Path | None = None) -> Compiled:
    """The network in `folder`, by the part's plan."""
    board = BOARDS[NAME]
    own = {"head": "keep", "rank_epochs": 1, "builder": "make", "board": board, "ranking": ranking}
    options = Options(target, limits(board), app="learn_by_button", **own)
    compile_model(folder / "tiny.pt2", datasets.load(str(folder / "data.npz")), options, folder / target)
    return Compiled.read(folder / target)


def turns_on(board: Attached, turns: Iterable[Turn]) -> Iterator[tuple[list[Shown], bool]]:
    """What the board shows of each turn, and whether it wrote to its flash."""
    machine, cells, sent = board.machine, board.cells, board.line.sent
    sent.clear()  # of before the power came
    for turn in turns:
        assert machine.run(machine.cycles(SECONDS * 1e6), lambda: sent[-4:] == READY)
        sent.clear()
        before = cells.operations
        board.line.put(turn.message())
        assert machine.run(machine.cycles(SECONDS * 1e6), lambda: sent[-4:] == READY)
        events = shown(bytes(sent))
        yield events, cells.operations != before


def test_it_commits_while_no_button_is_down_and_a_reset_forgets_nothing(tmp_path: Path) -> None:
    small = compile_tiny(tmp_path)
    host = learning(tmp_path, "host")
    chip = learning(tmp_path, NAME, host.folder / "04_ranking.json")
    samples = samples_of(small)
    x, y = np.concatenate([samples.x] * 2)[:PRESSES], np.concatenate([samples.y] * 2)[:PRESSES]
    teach, look = taught(x, y.tolist()), looked_at(x[:LOOKS])
    board = Attached(NAME, chip.image)
    board.machine.power_on()
    events = []
    for turn, (own, wrote) in zip(teach, turns_on(board, teach), strict=True):
        assert wrote == (own[-1].event == COMMITTED)
        assert not wrote or turn.label == NO_LABEL
        events += own
    assert [event.event for event in events].count(COMMITTED) == PRESSES // COMMIT_STEPS
    assert events == on_host(host.image, tmp_path / "run", teach)
    board.machine.power_on()  # what was not committed is gone
    found = [event for own, _ in turns_on(board, look) for event in own]
    assert found == on_host(host.image, tmp_path / "run", look)
    assert found != on_host(host.image, tmp_path / "untrained", look)
    assert not board.machine.refusals
