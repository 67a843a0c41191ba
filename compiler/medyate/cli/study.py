# SPDX-License-Identifier: Apache-2.0
"""`medyate study SPEC.toml` runs a grid, `medyate study report` says what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medyate.extras import require
from medyate.progress import Bar
from medyate.study.job import Outcome, Work
from medyate.terminal import console

DATABASES = Path("build/studies")


class RunByDefault(TyperGroup):
    """A first word that is no command is a study to run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` in front where no command is named."""
        named = any(word in self.commands for word in args[:1])
        return super().parse_args(ctx, args if named or not args or args == ["--help"] else ["run", *args])


app = typer.Typer(cls=RunByDefault, no_args_is_help=True, help="Grids of trainings: run them, compare them.")

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
    if cluster is not None:
        require("a cluster", "ray")

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


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A study's TOML file, or a result file.")],
    db: Database = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; default: that of the results.")] = None,
    form: Annotated[str, typer.Option("--format", help="Format of the pictures: png or svg.")] = "png",
    json_: Json = False,
) -> None:
    """Tables, paired t-tests, sweeps and pictures of what has been run."""
    from medyate import files
    from medyate.errors import ArtefactError, DataError
    from medyate.study import spec
    from medyate.study.document import write
    from medyate.study.store import Store

    if form not in ("png", "svg"):
        raise DataError(f"pictures of the format '{form}' are not made.", "Use --format png or svg.")
    study = spec.read(file) if file.suffix == ".toml" else None
    path = file if study is None else db or DATABASES / f"{study.name}.sqlite"
    name = path.stem if study is None else study.name
    store = Store(path, create=False)
    try:
        places = None if study is None else {cell.key: place for place, cell in enumerate(study.cells)}
        ranked = None if study is None else {job.key for job in study.rankings}
        results, failures = store.results(), store.failures()
        if places is not None:  # the study's own cells, in its order
            results = sorted((row for row in results if row[0].key in places), key=lambda row: places[row[0].key])
            failures = [row for row in failures if row[0].key in places]
        rankings = [ranking for key, ranking in store.rankings().items() if ranked is None or key in ranked]
    finally:
        store.close()
    contrasts = () if study is None else study.contrasts
    with files.boundary(ArtefactError, f"the results in '{path}' do not fit each other", "Run the study again."):
        content = write(name, results, failures, rankings, out or path.with_suffix(""), f".{form}", contrasts)
    if json_:
        print(json.dumps(content))
    else:
        console.print(f"wrote {content['report']} and {len(content['pictures'])} pictures")


@app.command()
def scheme(
    model: Annotated[Path, typer.Argument(help="A .tflite, .onnx, .pkl or .pt2 file.")],
    data_: Annotated[str, typer.Option("--data", help="Class folders, an .npz, or 'digits'.")],
    budget: Annotated[int, typer.Option(min=1, help="Budget in the unit of --cost.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The scheme, for a study's {name = 'su', scheme = ...}.")],
    cost: Annotated[str, typer.Option(help="paper (elements) or device (bytes).")] = "paper",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 3,
    rate: Annotated[float, typer.Option(min=1e-6, help="Peak learning rate.")] = 0.02,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    limit: Annotated[int, typer.Option(min=0, help="Training samples; 0: all.")] = 200,
    pixels: Annotated[str, typer.Option(help="What a sample's value means to the network.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=0xFFFFFFFF)] = 0,
    json_: Json = False,
) -> None:
    """Measures a sparse update for any network: trains shares of every layer, then spends the budget on the best."""
    from medyate import artefact
    from medyate.stages import check_packages

    check_packages(model)
    from medyate.strategies.cost import cost_model
    from medyate.study.scheme import find
    from medyate.study.trainer import Recipe

    model_of_cost = cost_model(cost)
    artefact.check_writable(out)
    with Bar() as bar:
        found = find(
            (model, data_, limit, pixels),
            (budget, model_of_cost),
            Recipe(epochs, 0, batch, rate, seed),
            lambda done, total: bar.show("measure", done, total),
        )
    artefact.write_json(out, found)
    if json_:
        print(json.dumps(found))
    else:
        console.print(f"wrote {out}: {len(found['channels'])} layers, {sum(found['channels'].values())} channels")
