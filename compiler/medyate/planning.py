# SPDX-License-Identifier: Apache-2.0
"""What `medyate plan` does: one plan with all that follows from it, or the frontier; files where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.boards import Board
from medyate.datasets import Dataset
from medyate.figure import check_drawing, check_picture
from medyate.plan.advice import alternatives, peak
from medyate.plan.budget import Network
from medyate.plan.frontier import Selections, frontier
from medyate.plan.plan import Plan
from medyate.rank.lara import Ranking, channel_costs
from medyate.report.frontier import draw_frontier
from medyate.report.memory_map import draw_plan
from medyate.stages import Options, Progress, bank_sectors, gather, warnings

Draw = Callable[[dict[str, Any], list[Path]], None]


@dataclass(frozen=True)
class Pictures:
    """Where the user wants the result. Raises DataError or ToolchainError for a picture that cannot be written."""

    folder: Path | None
    picture: Path | None

    def __post_init__(self) -> None:
        if self.folder is not None:
            check_drawing()
        if self.picture is not None:
            check_picture(self.picture)

    def write(self, name: str, picture: str, content: dict[str, Any], draw: Draw) -> dict[str, Any]:
        """The content and, where there are some, its pictures' paths."""
        paths = [] if self.folder is None else [self.folder / f"{picture}.svg", self.folder / f"{picture}.png"]
        paths += [] if self.picture is None else [self.picture]
        if self.folder is not None:
            artefact.write_json(self.folder / f"{name}.json", content)
        if paths:
            draw(content, paths)
        return {**content, "pictures": [str(path) for path in paths]}


def plan_one(model: Path, dataset: Dataset, options: Options, pictures: Pictures, progress: Progress) -> dict[str, Any]:
    """The overview of one plan. Raises BudgetError when RAM or flash do not suffice."""
    material = gather(model, dataset, options, progress, pictures.folder)
    progress("plan", 0, 1)
    network = material.network()
    with material.kept(pictures.folder):
        plan = material.plan(options.limits, network)
    content = overview(
        plan, network, material.trainable, options.board, lambda done, total: progress("alternatives", done, total)
    )
    content["gradient"] = gradient(plan, material.ranking)
    content["warnings"] = warnings(dataset, content["total_layers"])
    return pictures.write("plan", "memory", content, draw_plan)


def plan_frontier(
    model: Path, dataset: Dataset, options: Options, most: int | None, pictures: Pictures, progress: Progress
) -> dict[str, Any]:
    """The frontier up to `most` bytes, or to where all layers are candidates. Raises BudgetError."""
    material = gather(model, dataset, options, progress, pictures.folder)
    with material.kept(pictures.folder):
        points = frontier(
            material.network(),
            material.trainable,
            material.limits(options.limits),
            most,
            lambda done, total: progress("frontier", done, total),
        )
    content = {
        "network": material.qgraph.graph.name,
        "total_layers": len(channel_costs(material.qgraph.graph)),
        "warnings": warnings(dataset, len(material.ranking.scores)),
        "smallest_ram_bytes": points[0].ram_bytes,
        "frontier": [point.to_json() for point in points],
    }
    return pictures.write("frontier", "frontier", content, draw_frontier)


def overview(
    plan: Plan, network: Network, ranking: Ranking, board: Board | None, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """The plan and what follows from it. Raises BudgetError when the board's flash does not hold two banks."""
    assert plan.row is not None
    banks = bank_sectors(plan, board)
    drawn = Selections(network, ranking, plan.limits)
    return {
        **plan.to_json(),
        "board": None if board is None else board.name,
        "regions": regions(plan),
        "banks": None if banks is None else banks.to_json(),
        "depth": drawn.depth.get(plan.row.deepest, 0),
        "expected_depth": drawn.expected_depth(plan.row),
        "peak": peak(plan),
        "alternatives": [found.to_json() for found in alternatives(network, ranking, plan, progress)],
    }


def gradient(plan: Plan, ranking: Ranking) -> dict[str, float]:
    """How much of the ranking's summed squared gradients an epoch trains in the mean, and what that takes.

    Norms of layers add up like LaRa's: DESIGN.md, section 6.
    """
    row = plan.row
    assert row is not None
    energy = {score.layer: (score.lara * score.elements) ** 2 for score in ranking.scores}
    share = sum(energy[c.layer] for c in plan.candidates) / (sum(energy.values()) or 1.0) * row.alpha
    taken = sum(plan.regions.values()) + plan.static_reserved_bytes
    return {
        "share": share,
        "per_kib": 1024 * share / taken,
        "per_million_instructions": 1e6 * share / row.step_instructions,
    }


def regions(plan: Plan) -> list[dict[str, Any]]:
    """Bytes and area of everything that takes RAM, and what is free in each area."""
    sizes = {"static": plan.static_reserved_bytes, **plan.regions}
    rows = [{"region": part, "bytes": size, "area": plan.assignment.area_of[part].name} for part, size in sizes.items()]
    for area in plan.limits.spaces:
        taken = sum(sizes[part] for part, place in plan.assignment.area_of.items() if place == area)
        rows.append({"region": "free", "bytes": area.bytes - taken, "area": area.name})
    return rows
