# SPDX-License-Identifier: Apache-2.0
"""`medyate rank`: scores of every layer; with --compare, the correlation of stored rankings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from medyate import artefact, datasets
from medyate.cli.options import Json, OutputName, Pixels, Seed, Split, show, warn
from medyate.datasets import AUTO, PIXELS
from medyate.errors import DataError, MedyateError
from medyate.extras import require
from medyate.figure import check_picture
from medyate.options import choice
from medyate.plan.budget import Limits
from medyate.progress import Bar
from medyate.rank.lara import COVERAGE
from medyate.report.rankings import SCORES, compare, draw
from medyate.stages import Options, warnings
from medyate.terminal import console


def rank(
    files: Annotated[list[Path], typer.Argument(help="A model; with --compare, rankings of one network.")],
    data_: Annotated[str | None, typer.Option("--data", help="Class folders, an .npz, or 'digits'.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The ranking, its head beside it in an .npz; with --compare, a picture."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Spearman's correlation of stored rankings.")] = False,
    pixels: Pixels = AUTO,
    output: OutputName = "",
    epochs: int = 3,
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """LaRa and TraDy scores of every layer by a short fine-tuning on this machine."""
    if compare:
        compare_rankings(files, out, json_)
        return
    if len(files) != 1 or data_ is None or out is None:
        raise DataError("a ranking needs one model, --data and -o.", "Give them, or --compare with stored rankings.")
    from medyate.stages import check_packages, load_one, make_ranking, prepare

    if epochs < 1:
        raise DataError("ranking needs at least one epoch.", "Check --epochs.")
    choice(pixels, PIXELS, "--pixels")
    check_beside(out)
    check_packages(files[0])
    dataset = datasets.load(data_, split)
    normal, _, _, dataset, meaning = prepare(load_one(files[0], output), dataset, pixels)
    options = Options("host", Limits(0), pixels, rank_epochs=epochs, seed=seed)
    with Bar() as bar:
        ranking, head = make_ranking(normal, dataset, meaning, options, bar.show)
    artefact.write_json(out, ranking.to_json())
    artefact.write_arrays(beside(out), {HEAD: head})

    def human() -> None:
        table = Table("rank", "layer", "LaRa", "TraDy", "elements")
        for i, s in enumerate(ranking.scores):
            table.add_row(str(i + 1), s.layer, f"{s.lara:.3e}", f"{s.trady:.3e}", f"{s.elements:,}")
        console.print(table)

    show({**ranking.to_json(), "warnings": warn(warnings(dataset, len(ranking.scores)))}, json_, human)


HEAD = "head"
"""Of the fine-tuning, beside a ranking: without it, --ranking would train one again."""


def beside(out: Path) -> Path:
    """The file of the head."""
    return out.with_suffix(".npz")


def check_beside(out: Path) -> None:
    """Raises DataError where the head of the fine-tuning would take the place of something else."""
    path = beside(out)
    if out.suffix == ".npz":
        raise DataError(f"'{out}' cannot be a ranking: its head is kept in an .npz beside it.", "Name it *.json.")
    if path.exists():
        try:
            own = artefact.read_arrays(path).keys() == {HEAD}
        except MedyateError:
            own = False
        if not own:
            raise DataError(f"'{path}', where the ranking's head is kept, is somebody's.", "Give another --out.")


def compare_rankings(files: Sequence[Path], picture: Path | None, as_json: bool) -> None:
    """Prints the matrices; `picture`: where they are drawn as well."""
    if picture is not None:
        check_picture(picture)
    require("a correlation", "scipy")
    content = compare(files)
    if picture is not None:
        draw(content["rankings"], {score: np.array(content[score]) for score in SCORES}, picture)
    content["picture"] = None if picture is None else str(picture)
    if as_json:
        print(json.dumps(content))
        return
    for score in SCORES:
        table = Table(score, *(str(i + 1) for i in range(len(files))))
        for i, (name, row) in enumerate(zip(content["rankings"], content[score], strict=True)):
            table.add_row(f"{i + 1} {name}", *(f"{value:.3f}" for value in row))
        console.print(table)
    counts = ", ".join(map(str, content["covering"]))
    console.print(f"layers that hold {COVERAGE:.0%} of the TraDy score: {counts}")
    if picture is not None:
        console.print(f"wrote {picture}")
