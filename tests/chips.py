# SPDX-License-Identifier: Apache-2.0
"""digitnet in 24 KiB, compiled for a chip or for the host as a chip's plan has it."""

from __future__ import annotations

from pathlib import Path

from medyate import ledger
from medyate.boards import BOARDS, TARGETS, Board
from medyate.plan.budget import Limits
from medyate.run.train import Compiled
from medyate.stages import Options, compile_model
from shared_files import ROOT, field_digits

CHIPS = [name for name in TARGETS if BOARDS[name].is_real]
DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
RAM = 24 * 1024


def limits(board: Board) -> Limits:
    return Limits(RAM, areas=board.areas, static_bytes=ledger.STATIC_BYTES + board.port_bytes)


def compiled(
    folder: Path, target: str, board: Board, ranking: Path | None, builder: str = "make", key: bytes | None = None
) -> Compiled:
    options = Options(
        target, limits(board), head="keep", rank_epochs=1, builder=builder, ranking=ranking, board=board, link_key=key
    )
    compile_model(DIGITNET, field_digits(), options, folder)
    return Compiled.read(folder)
