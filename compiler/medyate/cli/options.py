# SPDX-License-Identifier: Apache-2.0
"""What the commands share: options, their values, and how results are printed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from medyate.assets import families
from medyate.boards import CHIPS, TARGETS
from medyate.build.project import APPS
from medyate.datasets import PIXELS
from medyate.options import BUILDERS
from medyate.plan.budget import SAMPLE, WEIGHTS
from medyate.plan.recompute import RECOMPUTE
from medyate.plan.stream import SCHEDULES
from medyate.recipe import CLIP, RATE
from medyate.terminal import errors
from medyate.training import FitOptions

Model = Annotated[Path, typer.Argument(help="A .tflite, .onnx or .pt2 file (torch.export.save).")]
Data = Annotated[str, typer.Option("--data", help="Class folders, an .npz, or 'digits'.")]
Split = Annotated[float, typer.Option(help="Share for testing where the data has no split of its own.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Seed = Annotated[int, typer.Option(min=0, max=0xFFFFFFFF, help="Seed of all random numbers.")]
Pixels = Annotated[str, typer.Option(help=f"What a sample's value means to the network: {', '.join(PIXELS)}.")]
OUTPUT = typer.Option("--output", help="Which output, of a model with several; see `inspect`.")
OutputName = Annotated[str, OUTPUT]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the artefacts.")]
BAUD_OPTION = typer.Option("--baud", min=50, max=50_000_000, help="Speed of the serial port, bits per second.")
Baud = Annotated[int, BAUD_OPTION]
KEY = typer.Option(
    "--link-key",
    help="A file with 32 to 128 hexadecimal digits, or the digits: whoever has the key may end the target's "
    "program, reset it and read what it learned.",
)
LinkKey = Annotated[str | None, KEY]

OPTIONS = {
    "ram": typer.Option(help="Total SRAM: 128KiB, 131072, 320kB ...; default: all of --board, else 128KiB."),
    "board": typer.Option(help=f"Plan for its RAM and flash: {', '.join(CHIPS)}."),
    "min_elements": typer.Option(help="Smallest budget in the papers' elements."),
    "budget": typer.Option(help="Largest size in bytes of what is trained at a time; default: what fits."),
    "max_step_instructions": typer.Option(help="Most instructions of a step, estimated; 0: no limit.", min=0),
    "alpha": typer.Option(help="Largest budget as a share of the candidate layers."),
    "pixels": typer.Option(help=f"What a sample's value means to the network: {', '.join(PIXELS)}."),
    "head": typer.Option(
        help="new (starts at zero) or keep (the pretrained one); full or sampled (trains a share of its inputs at a "
        "time). Both choices: with a comma."
    ),
    "output": OUTPUT,
    "ranking": typer.Option(help="Reuse a ranking made by `rank`."),
    "grad_bits": typer.Option(help="Bits of a stored gradient: 8 or 16."),
    "batch": typer.Option(help="Samples whose mean gradient makes one update: a power of two."),
    "schedule": typer.Option(help=f"By layers or by rows: {', '.join(SCHEDULES)}."),
    "recompute": typer.Option(help=f"Clamp masks made again in the backward pass: {', '.join(RECOMPUTE)}."),
    "sample": typer.Option(help=f"How the device gets a sample: {', '.join(SAMPLE)}."),
    "weights": typer.Option(help=f"Place of candidate layers' weights: {', '.join(WEIGHTS)}."),
    "strategy": typer.Option(help="How channels are chosen: `medyate strategies`."),
    "set_": typer.Option(
        "--set", help="Setting of the strategy, NAME=VALUE: k, coverage, boost, scheme ... May be repeated."
    ),
    "seed": typer.Option(min=0, max=0xFFFFFFFF, help="Seed of all random numbers."),
    "split": typer.Option(help="Share for testing where the data has no split of its own."),
    "target": typer.Option(help=f"What to build for: {', '.join(TARGETS)}."),
    "stack": typer.Option(help="Reserved stack; 'bound': plan again with what the first image needs. Default: 2KiB."),
    "board_ram": typer.Option(help="RAM in the linker script; default: --ram."),
    "builder": typer.Option(help=f"{' or '.join(BUILDERS)}, for boards."),
    "rounding": typer.Option(help="Rounding of sums: once (onnxruntime), twice (TFLite) or auto (as the file)."),
    "name": typer.Option(help="Prefix of generated files, symbols and macros, so that one image can hold two models."),
    "kernels": typer.Option(help=f"Family of kernels, {' or '.join(families())}; default: the target's own."),
    "app": typer.Option(help=f"Application, {', '.join(APPS)}; `run` speaks to the first alone."),
    "link_key": KEY,
    "on": typer.Option(help="host, qemu or serial:PORT."),
    "epochs": typer.Option(help="Times that every training sample is seen."),
    "rate": typer.Option(help=f"Peak learning rate, like {RATE:g}, or auto: by short trials on the target."),
    "clip": typer.Option(help=f"Largest norm of a layer's gradient in a step; 0: no limit. Default: {CLIP:g}."),
    "limit": typer.Option(help="Training samples per epoch."),
    "head_only": typer.Option(help="Train the last layer and nothing else."),
    "flip": typer.Option(
        help="Flip images at random, on the device. Default: if trials show no harm; never with a rate."
    ),
    "shift": typer.Option(help="Largest random move of training samples, in pixels."),
    "smoothing": typer.Option(help="Share of each label that is spread over all classes."),
    "resume": typer.Option(
        help="Go on from what the flash holds. Default: start afresh, and go on when the target restarts; "
        "--no-resume ends the run then."
    ),
    "fresh": typer.Option("--fresh", help="Discard what the flash holds."),
    "guard": typer.Option(help="Do not commit an epoch that made the network worse: keep the accepted one and end."),
    "early_stop": typer.Option(
        min=1,
        help="End when so many epochs brought nothing on a tenth of the training samples, which is held out, and "
        "keep the best epoch: it is trained again where later ones have taken its place.",
    ),
    "no_measure": typer.Option(help="Do not measure memory use."),
    "evaluate_at_end": typer.Option(help="Do not evaluate after every epoch."),
    "flash": typer.Option(help="Flash file; default: OUT/flash.bin."),
    "baud": BAUD_OPTION,
    "log": typer.Option(help="Run log; default: OUT/run.json."),
}
"""Of the records that `taking` turns into options, by field."""
OWN = {
    (FitOptions, "schedule"): typer.Option(help="cosine (with a warm-up of one epoch) or constant."),
}
"""Of one record alone."""


def taking(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command of a function whose keyword parameters are records: their fields are options of the command."""
    own = inspect.signature(function, eval_str=True).parameters.values()
    plain = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
    records = {parameter.name: parameter.annotation for parameter in own if parameter.kind is parameter.KEYWORD_ONLY}
    names = {name: [part.name for part in fields(record)] for name, record in records.items()}
    options = [
        inspect.Parameter(
            part.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=part.default,
            annotation=Annotated[get_type_hints(record)[part.name], OWN.get((record, part.name), OPTIONS[part.name])],
        )
        for record in records.values()
        for part in fields(record)
    ]

    @wraps(function)
    def command(**given: Any) -> None:
        made = {name: records[name](**{part: given.pop(part) for part in parts}) for name, parts in names.items()}
        function(**given, **made)

    ordered = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in plain]
    command.__signature__ = inspect.Signature([*ordered, *options])  # type: ignore[attr-defined]
    return command


def tell(text: str) -> None:
    """One sentence without its full stop, on standard error."""
    errors.print(f"medyate: {text}.")


def warn(texts: Sequence[str]) -> list[str]:
    """Says what is likely to be a mistake, on standard error; returned for --json."""
    for text in texts:
        tell(f"warning: {text}")
    return list(texts)


def show(content: dict[str, Any], as_json: bool, human: Callable[[], None]) -> None:
    """One JSON object on standard output, or what a person reads."""
    if as_json:
        print(json.dumps(content))
    else:
        human()
