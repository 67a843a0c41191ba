# SPDX-License-Identifier: Apache-2.0
"""`medyate compile`: all stages up to a built image."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from medyate import artefact, data
from medyate.assets import families
from medyate.boards import BOARDS, TARGETS
from medyate.build.compile import check_tools
from medyate.build.project import APP, APPS
from medyate.cli.options import (
    BOUND,
    BUILDERS,
    Builder,
    Data,
    Json,
    LinkKey,
    Model,
    Out,
    Planning,
    Stack,
    choice,
    link_key,
    parse_size,
    show,
    taking,
    tell,
    warn,
)
from medyate.emit.emitter import PREFIX, check_prefix
from medyate.errors import DataError
from medyate.progress import Bar
from medyate.stages import warnings
from medyate.terminal import console


@taking(Planning)
def compile(
    model: Model,
    data_: Data,
    out: Out,
    target: Annotated[str, typer.Option(help=f"What to build for: {', '.join(TARGETS)}.")] = "host",
    stack: Stack = None,
    board_ram: Annotated[str | None, typer.Option(help="RAM in the linker script; default: --ram.")] = None,
    builder: Builder = "platformio",
    rounding: Annotated[
        str,
        typer.Option(help="Rounding of sums: once (onnxruntime), twice (TFLite) or auto (as the file)."),
    ] = "auto",
    name: Annotated[
        str, typer.Option(help="Prefix of generated files, symbols and macros, so that one image can hold two models.")
    ] = PREFIX,
    kernels: Annotated[
        str | None, typer.Option(help=f"Family of kernels, {' or '.join(families())}; default: the target's own.")
    ] = None,
    app: Annotated[str, typer.Option(help=f"Application, {', '.join(APPS)}; `run` speaks to the first alone.")] = APP,
    link_key_: LinkKey = None,
    json_: Json = False,
    *,
    planning: Planning,
) -> None:
    """All stages up to a built image; every stage leaves its artefact in the folder."""
    from medyate.report.plan import print_banks, print_table
    from medyate.run import held
    from medyate.stages import check_packages, compile_model

    choice(target, TARGETS, "--target")
    choice(builder, BUILDERS, "--builder")
    choice(rounding, ("auto", "once", "twice"), "--rounding")
    choice(app, tuple(APPS), "--app")
    if kernels is not None:
        choice(kernels, families(), "--kernels")
    if BOARDS[target].is_real:
        if planning.board not in (None, target):
            raise DataError(f"an image for {target} is planned for its own memory.", "Leave --board out.")
        planning = replace(planning, board=target)
    options = replace(
        planning.options(stack),
        target=target,
        rounding=rounding,
        builder=builder,
        board_ram_bytes=None if board_ram is None else parse_size(board_ram),
        tight=stack == BOUND,
        kernels=kernels,
        app=app,
        link_key=link_key(link_key_),
        prefix=check_prefix(name),
    )
    if options.tight and target == "host":
        raise DataError("this machine's stack says nothing of a device's.", "Give another --target, or --stack BYTES.")
    if options.board_ram_bytes == 0:
        raise DataError("a board without RAM cannot run anything.", "Leave --board-ram out, or give its size.")
    if options.board_ram_bytes is not None and options.board is not None:
        raise DataError(
            f"--board {options.board.name} says already how much RAM is linked against.", "Leave --board-ram out."
        )
    check_packages(model)
    check_tools(target, builder)
    dataset = data.load(data_, planning.split)
    with Bar() as bar:
        made, image = compile_model(model, dataset, options, out, bar.show, tell)
    flash = out / "flash.bin"
    stale = held.strangers(held.find(flash.read_bytes()), made.digest) if flash.is_file() else ""
    if stale:
        tell(f"'{flash}' holds {stale}, with which this model cannot go on")
    content = {
        **made.to_json(),
        "board": planning.board,
        "banks": artefact.read_json(out / "model.json")["banks"],
        "target": target,
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
