# SPDX-License-Identifier: Apache-2.0
"""From instructions to cycles and milliseconds: an estimate, by ranges, for boards whose clock is known."""

from __future__ import annotations

from dataclasses import dataclass

from medyate.boards import Board

PER_INSTRUCTION = {"Cortex-M4": (1.05, 1.35), "Cortex-M7": (0.8, 1.5)}
"""By llvm-mca's models, from code that repeats without a gap to code that overlaps with nothing: what
`tools/cycle_study.py` prints, rounded away from each other."""
ANY_CORE = (0.8, 1.5)
"""Assumed for cores that llvm-mca has no model of."""
LEFT_OUT = (
    "flash wait states, caches, memory stalls, branches that empty the pipeline, interrupts; of a commit the time in "
    "which the flash is busy"
)


@dataclass(frozen=True)
class Cycles:
    """Of some instructions on a board."""

    clock_hz: int
    per_instruction: tuple[float, float]

    def count(self, instructions: int) -> list[int]:
        """From least to most."""
        return [round(instructions * each) for each in self.per_instruction]

    def milliseconds(self, instructions: int) -> list[float]:
        """Likewise."""
        return [round(1e3 * cycles / self.clock_hz, 3) for cycles in self.count(instructions)]


def cycles_on(board: Board) -> Cycles | None:
    """None where the board's clock is not known."""
    if board.build is None or board.build.clock_hz == 0:
        return None
    return Cycles(board.build.clock_hz, PER_INSTRUCTION.get(board.core, ANY_CORE))
