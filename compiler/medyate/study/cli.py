# SPDX-License-Identifier: Apache-2.0
"""`medyate study SPEC.toml` runs a grid, `medyate study report` says what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from medyate.progress import Bar
from medyate.study.job import Outcome, Work

DATABASES = Path("build/studies")


class RunByDefault(TyperGroup):
    """A first word that is no command is a study to run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` in front where no command is named."""
        named = any(word in self.commands for word in args[:1])
        return super().parse_args(ctx, args if named or not args or args == ["--help"] else ["run", *args])


app = typer.Typer(cls=RunByDefault, no_args_is_help=True, help="Grids of trainings: run them, compare them.")
console = Console(highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Database = Annotated[Path | None, typer.Option("--db", help="Result file; default: build/studies/NAME.sqlite.")]


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A study's TOML file.")],
    db: Database = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="A Ray cluster's address, or 'local'.")] = None,
    json_: Json = False,
) -> None:
    """Runs every cell that has no result yet; exit code 1 if one fails."""
    from medyate.study import spec
    from medyate.study.run import run as run_study

    study = spec.read(file)
    path = db or DATABASES / f"{study.name}.sqlite"

    def backend(jobs: Sequence[Work]) -> Iterator[Outcome]:
        from medyate.study import cluster as on_cluster
        from medyate.study import local

        return local.run(jobs, workers) if cluster is None else on_cluster.run(jobs, cluster)

    with Bar() as bar:
        summary = run_study(study, path, backend, bar.show)
    content = {"db": str(path), "cells": summary.cells, "before": summary.before, "failed": list(summary.failed)}
    if json_:
        print(json.dumps(content))
    else:
        new = summary.cells - summary.before - len(summary.failed)
        console.print(
            f"{summary.cells} cells: {summary.before} were there, {new} new, {len(summary.failed)} failed; in {path}"
        )
    if summary.failed:
        raise typer.Exit(1)
