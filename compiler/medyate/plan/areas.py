# SPDX-License-Identifier: Apache-2.0
"""Which RAM area holds what: static data with the stack, and the planned, epoch and state regions.

Boards have few areas: every assignment is tried, and the one taken leaves most bytes for the epoch region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from medyate.boards import Area
from medyate.ledger import align

PARTS = ("static", "planned", "epoch", "state")
"""static: .data, .bss without the regions, and the stack."""


@dataclass(frozen=True)
class Assignment:
    """Where everything lies."""

    area_of: dict[str, Area]
    """By part of PARTS."""
    left_bytes: int
    """For the epoch region; negative: what is missing."""


def assign(areas: Sequence[Area], static: int, planned: int, state: int, limit: int) -> Assignment:
    """The assignment that leaves most; `limit`: bytes of all areas together that may be used.

    Where nothing fits, the one that lacks least. Of equal ones the first areas are taken.
    """
    sizes = (static, align(planned, 8), 0, state)
    most = limit - sum(sizes)
    best: Assignment | None = None
    for places in product(range(len(areas)), repeat=len(PARTS)):
        free = [area.bytes for area in areas]
        for place, size in zip(places, sizes, strict=True):
            free[place] -= size
        missing = sum(min(0, bytes_) for bytes_ in free)
        left = min(missing or free[places[PARTS.index("epoch")]], most) // 8 * 8
        if best is None or left > best.left_bytes:
            best = Assignment({part: areas[place] for part, place in zip(PARTS, places, strict=True)}, left)
    assert best is not None
    return best
