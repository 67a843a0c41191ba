# SPDX-License-Identifier: Apache-2.0
"""What the commands share: options, their values, and how results are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from medyate import ledger
from medyate.boards import CHIPS, Board, with_limit
from medyate.data import PIXELS
from medyate.errors import DataError
from medyate.plan.budget import ALPHA, HEADS, SAMPLE, WEIGHTS, Limits
from medyate.plan.recompute import RECOMPUTE
from medyate.plan.stream import SCHEDULES
from medyate.recipe import check_batch
from medyate.terminal import errors

Model = Annotated[Path, typer.Argument(help="A .tflite, .onnx or .pt2 file (torch.export.save).")]
Data = Annotated[str, typer.Option("--data", help="Class folders, an .npz, or 'digits'.")]
Split = Annotated[float, typer.Option(help="Share for testing where the data has no split of its own.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Seed = Annotated[int, typer.Option(min=0, max=0xFFFFFFFF, help="Of all random numbers.")]
Pixels = Annotated[str, typer.Option(help=f"What a sample's value means to the network: {', '.join(PIXELS)}.")]
Ram = Annotated[
    str | None, typer.Option(help="Total SRAM: 128KiB, 131072, 320kB ...; default: all of --board, else 128KiB.")
]
BoardName = Annotated[str | None, typer.Option("--board", help=f"Plan for its RAM and flash: {', '.join(CHIPS)}.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the artefacts.")]
RankingFile = Annotated[Path | None, typer.Option("--ranking", help="Reuse a ranking made by `rank`.")]
HeadChoice = Annotated[
    str,
    typer.Option(
        "--head",
        help="new (starts at zero) or keep (the pretrained one), and full or sampled (a share of its inputs is trained "
        "at a time); both with a comma.",
    ),
]
MinElements = Annotated[int, typer.Option(help="Smallest budget in the papers' elements.")]
Budget = Annotated[
    str | None, typer.Option("--budget", help="Largest budget, bytes of what is trained at a time; default: what fits.")
]
StepInstructions = Annotated[
    int, typer.Option("--max-step-instructions", help="No training step takes more, estimated; 0: any number.", min=0)
]
Alpha = Annotated[float, typer.Option(help="Largest budget as a share of the candidate layers.")]
RowSchedule = Annotated[str, typer.Option("--schedule", help=f"Rings of rows: {', '.join(SCHEDULES)}.")]
Recompute = Annotated[str, typer.Option(help=f"Clamp masks made again on the way back: {', '.join(RECOMPUTE)}.")]
Sample = Annotated[str, typer.Option(help=f"How a sample comes: {', '.join(SAMPLE)}.")]
WeightPlace = Annotated[str, typer.Option("--weights", help=f"Of candidate layers: {', '.join(WEIGHTS)}.")]
Batch = Annotated[int, typer.Option(help="Samples whose mean gradient makes one update: a power of two.")]
GradBits = Annotated[int, typer.Option(help="Bits of a stored gradient: 8 or 16.")]

Baud = Annotated[int, typer.Option("--baud", min=50, max=50_000_000, help="Of a serial port, bits per second.")]
LinkKey = Annotated[
    str | None,
    typer.Option(
        "--link-key",
        help="A file with 32 to 128 hexadecimal digits, or the digits: who has them may end the target's program, "
        "reset it and read what it learned.",
    ),
]
StrategyName = Annotated[str, typer.Option("--strategy", help="How channels are chosen: `medyate strategies`.")]
SettingsText = Annotated[
    list[str] | None,
    typer.Option("--set", help="Of the strategy, NAME=VALUE: k, coverage, boost, scheme ... May be repeated."),
]

SIZE = re.compile(r"(\d+)\s*(|b|k|kb|kib|m|mb|mib)", re.IGNORECASE)
SAVING = ("--schedule", "--recompute", "--sample", "--weights")
BOUND = "bound"
KEY_DIGITS = 1024
"""Characters of a key's file that are looked at."""
RAM = "128KiB"
"""Where neither --ram nor --board says how much there is."""
UNITS = {"": 1, "b": 1, "k": 1024, "kib": 1024, "kb": 1000, "m": 1 << 20, "mib": 1 << 20, "mb": 10**6}


def parse_size(text: str) -> int:
    """Bytes of a size like 128KiB. Raises DataError."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise DataError(f"'{text}' is no size.", "Write it like 128KiB, 320kB or 131072.")
    return int(match.group(1)) * UNITS[match.group(2).lower()]


def link_key(text: str | None) -> bytes | None:
    """The key of --link-key. Raises DataError."""
    if text is None:
        return None
    path = Path(text)
    try:
        digits = path.read_text()[:KEY_DIGITS] if len(text) < 256 and path.is_file() else text
        key = bytes.fromhex(digits)
    except (OSError, ValueError) as error:
        what = "--link-key names no file with hexadecimal digits, and is none."
        raise DataError(what, "Make one: head -c 32 /dev/urandom | od -An -tx1 > key.hex") from error
    if not 16 <= len(key) <= 64:
        raise DataError(f"a link key of {len(key)} B cannot be used.", "Give 16 to 64 B, two digits each.")
    return key


def choice(value: str, allowed: tuple[str, ...], option: str) -> str:
    """The value of an option, one of those allowed. Raises DataError."""
    if value not in allowed:
        raise DataError(f"{option} '{value}' is unknown.", f"It is one of {', '.join(allowed)}.")
    return value


def number(text: str, option: str) -> float:
    """The value of an option that may also be auto. Raises DataError."""
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{option} '{text}' is no number.", "Give one, or auto.") from error


def head_choice(text: str) -> tuple[str, str]:
    """(new or keep, full or sampled) of --head. Raises DataError."""
    parts = text.split(",")
    for part in parts:
        choice(part, ("new", "keep", *HEADS), "--head")
    starts, trained = [p for p in parts if p not in HEADS], [p for p in parts if p in HEADS]
    if len(starts) > 1 or len(trained) > 1:
        raise DataError(f"--head '{text}' contradicts itself.", "Give new or keep, and full or sampled.")
    return (*starts, "new")[0], (*trained, "full")[0]


def limits(
    memory: tuple[str | None, Board | None],
    min_elements: int,
    alpha: float,
    grad_bits: int,
    saving: tuple[str, str, str, str],
    head: str,
    stack: str | None = None,
    budget: str | None = None,
    instructions: int = 0,
    batch: int = 1,
) -> Limits:
    """What the options allow; `memory`: --ram and the board, `head`: one of HEADS. Raises DataError."""
    if grad_bits not in (8, 16):
        raise DataError(f"gradients of {grad_bits} bits do not exist.", "Use 8 or 16.")
    if not 0.0 < alpha <= 1.0:
        raise DataError(f"alpha {alpha:g} is outside (0, 1].", f"The papers' value is {ALPHA:g}.")
    if min_elements < 0:
        raise DataError(f"a budget of {min_elements} elements is below zero.", "Give 0 or more.")
    for value, allowed, option in zip(saving, (SCHEDULES, RECOMPUTE, SAMPLE, WEIGHTS), SAVING, strict=True):
        choice(value, allowed, option)
    most = 0 if budget is None else parse_size(budget)
    if budget is not None and most == 0:
        raise DataError("a budget of no bytes trains nothing.", "Leave out --budget, or use `run --head-only`.")
    ram, board = memory
    total = parse_size(ram or RAM) if board is None else with_limit(board, None if ram is None else parse_size(ram))
    areas = () if board is None else board.areas
    reserved = ledger.STACK_BYTES if stack in (None, BOUND) else ledger.align(parse_size(str(stack)), 8)
    return Limits(
        total,
        reserved,
        min_elements,
        alpha,
        grad_bits,
        *saving,
        head,
        areas,
        budget_bytes=most,
        step_instructions=instructions,
        batch=check_batch(batch),
    )


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
