# SPDX-License-Identifier: Apache-2.0
"""`medyate export` and `medyate report`: what came of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medyate import files
from medyate.cli.options import Baud, Json, LinkKey, show
from medyate.errors import ArtefactError
from medyate.options import link_key
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
    picture: Annotated[Path | None, typer.Option("-o", "--out", help="A PNG; default: OUT/report.png.")] = None,
    json_: Json = False,
) -> None:
    """Accuracy, memory map, LaRa scores and selected channels of the last run, as a picture."""
    from medyate.figure import check_picture
    from medyate.report.picture import draw_last_run

    path = picture or out / "report.png"
    check_picture(path)
    with files.boundary(ArtefactError, f"plan, ranking and log in '{out}' do not fit each other", "Make them again."):
        draw_last_run(out, path)
    show({"picture": str(path)}, json_, lambda: console.print(f"wrote {path}"))
