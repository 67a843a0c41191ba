# SPDX-License-Identifier: Apache-2.0
"""`medyate plan`: what takes how many bytes, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medyate import datasets
from medyate.cli.options import Data, Json, Model, show, taking, warn
from medyate.options import PlanOptions
from medyate.progress import Bar
from medyate.terminal import console


@taking
def plan(
    model: Model,
    data_: Data,
    frontier: Annotated[bool, typer.Option("--frontier", help="What every amount of RAM gives, up to --ram.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for plan.json and both pictures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="A picture: FILE.svg or FILE.png.")] = None,
    json_: Json = False,
    *,
    planned: PlanOptions,
) -> None:
    """Bytes by region and area, peak, what would lower it, flash; or the frontier. Nothing is built."""
    from medyate.planning import Pictures, plan_frontier, plan_one
    from medyate.report.plan import print_frontier, print_plan
    from medyate.stages import check_packages

    options = planned.options()
    pictures = Pictures(out, picture)
    check_packages(model)
    dataset = datasets.load(data_, planned.split)
    with Bar() as bar:
        if frontier:
            bounded = planned.ram is not None or planned.chip is not None
            largest = options.limits.ram_bytes if bounded else None
            content = plan_frontier(model, dataset, options, largest, pictures, bar.show)
        else:
            content = plan_one(model, dataset, options, pictures, bar.show)
    warn(content["warnings"])
    show(content, json_, lambda: print_frontier(content, console) if frontier else print_plan(content, console))
