# SPDX-License-Identifier: Apache-2.0
"""Everything that `medyate plan` says about one plan, as one object: regions by area, peak, alternatives, banks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medyate.boards import Board
from medyate.plan.advice import alternatives, peak
from medyate.plan.budget import Network
from medyate.plan.frontier import Selections
from medyate.plan.plan import Plan
from medyate.plan.sectors import reserve
from medyate.rank.lara import Ranking


def overview(
    plan: Plan, network: Network, ranking: Ranking, board: Board | None, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """The plan and what follows from it. Raises BudgetError when the board's flash does not hold two banks."""
    from medyate.emit.size import image_bytes

    assert plan.row is not None
    banks = None if board is None else reserve(board, plan.generation_bytes, image_bytes(plan)).to_json()
    drawn = Selections(network, ranking)
    return {
        **plan.to_json(),
        "board": None if board is None else board.name,
        "regions": regions(plan),
        "banks": banks,
        "depth": drawn.depth[plan.row.deepest],
        "expected_depth": drawn.expected_depth(plan.row),
        "peak": peak(plan),
        "alternatives": [found.to_json() for found in alternatives(network, ranking, plan, progress)],
    }


def regions(plan: Plan) -> list[dict[str, Any]]:
    """Bytes and area of everything that takes RAM, and what is free in each area."""
    sizes = {"static": plan.static_reserved_bytes, **plan.regions}
    rows = [{"region": part, "bytes": size, "area": plan.assignment.area_of[part].name} for part, size in sizes.items()]
    for area in plan.limits.spaces:
        taken = sum(sizes[part] for part, place in plan.assignment.area_of.items() if place == area)
        rows.append({"region": "free", "bytes": area.bytes - taken, "area": area.name})
    return rows
