# SPDX-License-Identifier: Apache-2.0
"""What `medyate plan` does: one plan or the frontier, with files and pictures where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.boards import Board
from medyate.data import Dataset
from medyate.plan.frontier import frontier
from medyate.plan.overview import overview
from medyate.rank.lara import channel_costs
from medyate.report.figure import check_suffix
from medyate.report.frontier import draw_frontier
from medyate.report.memory_map import draw_plan
from medyate.stages import Options, Progress, gather

Draw = Callable[[dict[str, Any], list[Path]], None]


@dataclass(frozen=True)
class Pictures:
    """Where the user wants the result. Raises DataError for a picture that cannot be written."""

    folder: Path | None
    picture: Path | None

    def __post_init__(self) -> None:
        if self.picture is not None:
            check_suffix(self.picture)

    def write(self, name: str, picture: str, content: dict[str, Any], draw: Draw) -> dict[str, Any]:
        """The content and, where there are some, its pictures' paths."""
        paths = [] if self.folder is None else [self.folder / f"{picture}.svg", self.folder / f"{picture}.png"]
        paths += [] if self.picture is None else [self.picture]
        if self.folder is not None:
            artefact.write_json(self.folder / f"{name}.json", content)
        if paths:
            draw(content, paths)
        return {**content, "pictures": [str(path) for path in paths]}


def plan_one(
    model: Path, dataset: Dataset, options: Options, board: Board | None, pictures: Pictures, progress: Progress
) -> dict[str, Any]:
    """The overview of one plan. Raises BudgetError when RAM or flash do not suffice."""
    material = gather(model, dataset, options, progress)
    progress("plan", 0, 1)
    network = material.network()
    plan = material.plan(options.limits, network)
    content = overview(
        plan, network, material.ranking, board, lambda done, total: progress("alternatives", done, total)
    )
    return pictures.write("plan", "memory", content, draw_plan)


def plan_frontier(
    model: Path, dataset: Dataset, options: Options, most: int | None, pictures: Pictures, progress: Progress
) -> dict[str, Any]:
    """The frontier up to `most` bytes, or to where all layers are candidates. Raises BudgetError."""
    material = gather(model, dataset, options, progress)
    points = frontier(
        material.network(),
        material.ranking,
        options.limits,
        most,
        lambda done, total: progress("frontier", done, total),
    )
    content = {
        "network": material.qgraph.graph.name,
        "total_layers": len(channel_costs(material.qgraph.graph)),
        "smallest_ram_bytes": points[0].ram_bytes,
        "frontier": [point.to_json() for point in points],
    }
    return pictures.write("frontier", "frontier", content, draw_frontier)
