# SPDX-License-Identifier: Apache-2.0
"""`medyate export` and `medyate report`: what came of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medyate import artefact, datasets, files
from medyate.cli.options import Baud, Json, LinkKey, show
from medyate.errors import ArtefactError, DataError
from medyate.options import link_key
from medyate.run.train import Compiled
from medyate.run.transport import BAUD
from medyate.terminal import console


def export(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile` in which `run` trained.")],
    to: Annotated[Path, typer.Option("-o", "--out", help="FILE.tflite or FILE.onnx.")],
    flash: Annotated[Path | None, typer.Option(help="Bank image; default: OUT/flash.bin.")] = None,
    log: Annotated[Path | None, typer.Option(help="Run log; default: OUT/run.json.")] = None,
    on: Annotated[str | None, typer.Option(help="Ask a live target: host, qemu or serial:PORT.")] = None,
    baud: Baud = BAUD,
    link_key_: LinkKey = None,
    json_: Json = False,
) -> None:
    """The trained network as an int8 model file, from the newest generation in flash or of a live target."""
    from medyate.export.command import export_trained

    content = export_trained(
        out, to, flash or out / "flash.bin", log or out / "run.json", on, baud, link_key(link_key_)
    )

    def human() -> None:
        console.print(
            f"wrote {to}: {content['bytes']:,} B, generation {content['generation']} "
            f"of epoch {content['epochs']}, {content['classes']} classes"
        )

    show(content, json_, human)


def report(
    out: Annotated[Path, typer.Argument(help="A folder in which `run` has left its log.")],
    to: Annotated[
        Path | None, typer.Option("-o", "--out", help="A PNG, SVG or HTML file; default: OUT/report.png or .html.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="A page with all that is known of the run.")] = False,
    data_: Annotated[
        str | None, typer.Option("--data", help="What was trained with: the page shows samples that were taken wrong.")
    ] = None,
    json_: Json = False,
) -> None:
    """Accuracy, memory map, LaRa scores and selected channels of the last run, as a picture; as a page with more."""
    from medyate.figure import check_picture
    from medyate.report.page import check_page, write_page
    from medyate.report.picture import draw_last_run

    path = to or out / ("report.html" if html else "report.png")
    paged = html or path.suffix.lower() == ".html"
    check_page(path) if paged else check_picture(path)
    if data_ is not None and not paged:
        raise DataError("only a page shows samples.", "Give --html, or leave out --data.")
    artefact.check_writable(path)
    with files.boundary(ArtefactError, f"plan, ranking and log in '{out}' do not fit each other", "Make them again."):
        if paged:
            split = float(Compiled.read(out).model["split"])
            write_page(out, path, None if data_ is None else datasets.load(data_, split))
        else:
            draw_last_run(out, path)
    show({"page" if paged else "picture": str(path)}, json_, lambda: console.print(f"wrote {path}"))
