# SPDX-License-Identifier: Apache-2.0
"""What tests share: of the parts poke.c for their TARGET; of the ports one network, compiled once for each chip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from boards.bare import build
from boards.trained import Pair, right
from chips import compiled
from medyate.boards import BOARDS


@pytest.fixture(scope="module")
def poke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("poke", request.module.TARGET, tmp_path_factory.mktemp("poke"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """By the chip's name; each made once."""
    made: dict[str, Pair] = {}
    rankings: list[Path] = []

    def pair(name: str) -> Pair:
        if name not in made:
            folder, board = tmp_path_factory.mktemp(name), BOARDS[name]
            ranking = rankings[0] if rankings else None
            host = compiled(folder / "host", "host", board, ranking)
            rankings.append(rankings[0] if rankings else host.folder / "04_ranking.json")
            chip = compiled(folder / "chip", name, board, rankings[0])
            assert chip.model["digest"] == host.model["digest"]
            made[name] = Pair(name, chip, right(host, folder / "flash.bin"))
        return made[name]

    return pair
