# SPDX-License-Identifier: Apache-2.0
"""`medyate inspect` and `medyate verify`: what is in a model file, and whether the C gives its numbers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from medyate import datasets
from medyate.boards import HERE
from medyate.cli.options import Json, Model, Pixels, Seed, Split, show, warn
from medyate.datasets import AUTO, PIXELS
from medyate.options import choice
from medyate.progress import Bar
from medyate.terminal import console


def inspect(model: Model, json_: Json = False) -> None:
    """The imported network: layers, shapes, MACs, weights, and what can be trained."""
    from medyate.report.layers import describe

    content = describe(model)

    def human() -> None:
        table = Table("layer", "op", "input", "output", "MACs", "parameters", "bytes", "trainable")
        for r in content["layers"]:
            shape = " + ".join("x".join(map(str, s)) for s in r["inputs"])
            numbers = [f"{r[key]:,}" for key in ("macs", "parameters", "bytes")]
            table.add_row(r["layer"], r["op"], shape, "x".join(map(str, r["output"])), *numbers, r["trainable"])
        console.print(table)
        total = ", ".join(f"{content[key]:,} {key}" for key in ("macs", "parameters", "bytes"))
        console.print(f"{len(content['layers'])} layers, {total}; {content['numbers']}")
        for note in (*content["notes"], *content["blocked"]):
            console.print(note)

    show(content, json_, human)


def verify(
    model: Model,
    data_: Annotated[str | None, typer.Option("--data", help="Class folders or an .npz; default: noise.")] = None,
    on: Annotated[str, typer.Option(help=f"Where the C runs: {', '.join(HERE)}.")] = "host",
    samples: Annotated[int | None, typer.Option(min=1, help="How many are compared; default: 200, on QEMU 10.")] = None,
    pixels: Pixels = AUTO,
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """Runs the whole network in C and compares with the format's own runtime; exit code 1: no match."""
    from medyate.check import check, check_installed

    choice(on, HERE, "--on")
    choice(pixels, PIXELS, "--pixels")
    check_installed(model, on)
    dataset = None if data_ is None else datasets.load(data_, split)
    with Bar() as bar:
        report = check(model, on, samples or (200 if on == "host" else 10), dataset, pixels, seed, bar.show)

    def human() -> None:
        table = Table("figure", "value", show_header=False)
        for name, value in report.to_json().items():
            if value is not None and value != ():
                table.add_row(name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
        console.print(table)

    show({**report.to_json(), "warnings": warn(() if dataset is None else dataset.warnings())}, json_, human)
    if not report.match:
        raise typer.Exit(1)
