# SPDX-License-Identifier: Apache-2.0
"""`medyate compile`: all stages up to a built image."""

from __future__ import annotations

from medyate import artefact, datasets
from medyate.build.compile import check_tools
from medyate.cli.options import Data, Json, Model, Out, show, taking, tell, warn
from medyate.options import BuildOptions, PlanOptions
from medyate.progress import Bar
from medyate.stages import warnings
from medyate.terminal import console


@taking
def compile(
    model: Model,
    data_: Data,
    out: Out,
    json_: Json = False,
    *,
    planned: PlanOptions,
    built: BuildOptions,
) -> None:
    """All stages up to a built image; every stage leaves its artefact in the folder."""
    from medyate.report.plan import print_banks, print_table
    from medyate.run import held
    from medyate.stages import check_packages, compile_model

    options = built.options(planned)
    check_packages(model)
    check_tools(built.target, built.builder)
    dataset = datasets.load(data_, planned.split)
    with Bar() as bar:
        made, image = compile_model(model, dataset, options, out, bar.show, tell)
    flash = out / "flash.bin"
    stale = held.strangers(held.find(flash.read_bytes()), made.digest) if flash.is_file() else ""
    if stale:
        tell(f"'{flash}' holds {stale}, with which this model cannot go on")
    content = {
        **made.to_json(),
        "board": None if options.board is None else options.board.name,
        "banks": artefact.read_json(out / "model.json")["banks"],
        "target": built.target,
        "image": str(image.path),
        "static_bytes": image.static_bytes,
        "flash_bytes": image.flash_bytes,
    }
    content["warnings"] = warn(warnings(dataset, content["total_layers"]))

    def human() -> None:
        print_table(content, console)
        if content["banks"] is not None:
            print_banks(content["banks"], content["board"], console)
        console.print(f"built {image.path}" + (f", {image.flash_bytes:,} B of flash" if image.flash_bytes else ""))

    show(content, json_, human)
