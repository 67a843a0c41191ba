# SPDX-License-Identifier: Apache-2.0
"""`medyate inspect` and `medyate verify`: what is in a model file, and whether the C gives its numbers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from medyate import datasets
from medyate.boards import HERE
from medyate.cli.options import Json, Model, OutputName, Pixels, Seed, Split, show, warn
from medyate.datasets import AUTO, PIXELS
from medyate.options import choice
from medyate.progress import Bar
from medyate.terminal import console


def inspect(model: Model, output: OutputName = "", json_: Json = False) -> None:
    """The imported network: layers, shapes, MACs, weights, and what can be trained."""
    from medyate.report.layers import describe

    content = describe(model, output)

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
    output: OutputName = "",
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """Runs the whole network in C and compares with the format's own runtime; exit code 1: no match.

    Of a model with several outputs, every one unless one is named.
    """
    from medyate.check import check, check_installed
    from medyate.frontends import load

    choice(on, HERE, "--on")
    choice(pixels, PIXELS, "--pixels")
    check_installed(model, on)
    dataset = None if data_ is None else datasets.load(data_, split)
    count, names = samples or (200 if on == "host" else 10), [output]
    if not output:
        names = list(load(model).outputs) or names
    with Bar() as bar:
        reports = [check(model, on, count, dataset, pixels, seed, bar.show, name) for name in names]

    def human() -> None:
        for name, report in zip(names, reports, strict=True):
            table = Table("figure", "value", show_header=False, title=f"output '{name}'" if len(names) > 1 else None)
            for figure, value in report.to_json().items():
                if value is not None and value not in ((), ""):
                    text = f"{value:.6g}" if isinstance(value, float) else str(value)
                    table.add_row(figure.replace("_", " "), text)
            console.print(table)

    content = reports[0].to_json()
    if len(reports) > 1:
        found = {name: report.to_json() for name, report in zip(names, reports, strict=True)}
        content = {"match": all(report.match for report in reports), "outputs": found}
    show({**content, "warnings": warn(() if dataset is None else dataset.warnings())}, json_, human)
    if not all(report.match for report in reports):
        raise typer.Exit(1)
