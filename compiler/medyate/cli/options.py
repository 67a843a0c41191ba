# SPDX-License-Identifier: Apache-2.0
"""What the commands share: options, their values, and how results are printed."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from medyate import ledger
from medyate.boards import CHIPS, Board, with_limit
from medyate.boards import find as find_board
from medyate.datasets import AUTO, PIXELS
from medyate.errors import DataError
from medyate.plan.budget import ALPHA, HEADS, SAMPLE, WEIGHTS, Limits
from medyate.plan.recompute import RECOMPUTE
from medyate.plan.stream import SCHEDULES
from medyate.recipe import check_batch
from medyate.stages import Options
from medyate.strategies.settings import settings
from medyate.terminal import errors

Model = Annotated[Path, typer.Argument(help="A .tflite, .onnx or .pt2 file (torch.export.save).")]
Data = Annotated[str, typer.Option("--data", help="Class folders, an .npz, or 'digits'.")]
Split = Annotated[float, typer.Option(help="Share for testing where the data has no split of its own.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Seed = Annotated[int, typer.Option(min=0, max=0xFFFFFFFF, help="Seed of all random numbers.")]
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
        help="new (starts at zero) or keep (the pretrained one); full or sampled (trains a share of its inputs at a "
        "time). Both choices: with a comma.",
    ),
]
MinElements = Annotated[int, typer.Option(help="Smallest budget in the papers' elements.")]
Budget = Annotated[
    str | None, typer.Option("--budget", help="Largest size in bytes of what is trained at a time; default: what fits.")
]
StepInstructions = Annotated[
    int, typer.Option("--max-step-instructions", help="Most instructions of a step, estimated; 0: no limit.", min=0)
]
Alpha = Annotated[float, typer.Option(help="Largest budget as a share of the candidate layers.")]
RowSchedule = Annotated[str, typer.Option("--schedule", help=f"By layers or by rows: {', '.join(SCHEDULES)}.")]
Recompute = Annotated[str, typer.Option(help=f"Clamp masks made again in the backward pass: {', '.join(RECOMPUTE)}.")]
Sample = Annotated[str, typer.Option(help=f"How the device gets a sample: {', '.join(SAMPLE)}.")]
WeightPlace = Annotated[
    str, typer.Option("--weights", help=f"Place of candidate layers' weights: {', '.join(WEIGHTS)}.")
]
Batch = Annotated[int, typer.Option(help="Samples whose mean gradient makes one update: a power of two.")]
GradBits = Annotated[int, typer.Option(help="Bits of a stored gradient: 8 or 16.")]

Baud = Annotated[int, typer.Option("--baud", min=50, max=50_000_000, help="Speed of the serial port, bits per second.")]
LinkKey = Annotated[
    str | None,
    typer.Option(
        "--link-key",
        help="A file with 32 to 128 hexadecimal digits, or the digits: whoever has the key may end the target's "
        "program, reset it and read what it learned.",
    ),
]
Stack = Annotated[
    str | None,
    typer.Option(help="Reserved stack; 'bound': plan again with what the first image needs. Default: 2KiB."),
]
BUILDERS = ("platformio", "make")
Builder = Annotated[str, typer.Option(help=f"{' or '.join(BUILDERS)}, for boards.")]
StrategyName = Annotated[str, typer.Option("--strategy", help="How channels are chosen: `medyate strategies`.")]
SettingsText = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting of the strategy, NAME=VALUE: k, coverage, boost, scheme ... May be repeated."),
]

SIZE = re.compile(r"(\d+)\s*(|b|k|kb|kib|m|mb|mib)", re.IGNORECASE)
BOUND = "bound"
KEY_DIGITS = 1024
"""Characters of a key's file that are looked at."""
DEFAULT_RAM = 128 << 10
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
        what = "--link-key is neither a file of hexadecimal digits nor such digits."
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


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What `plan` and `compile` are both told."""

    ram: Ram = None
    board: BoardName = None
    min_elements: MinElements = 0
    budget: Budget = None
    step_instructions: StepInstructions = 0
    alpha: Alpha = ALPHA
    pixels: Pixels = AUTO
    head: HeadChoice = "new"
    ranking: RankingFile = None
    grad_bits: GradBits = 8
    batch: Batch = 1
    schedule: RowSchedule = "auto"
    recompute: Recompute = "none"
    sample: Sample = "auto"
    weights: WeightPlace = "flash"
    strategy: StrategyName = "medyate"
    set_: SettingsText = None
    seed: Seed = 0
    split: Split = 0.25

    @cached_property
    def chip(self) -> Board | None:
        """The board that is planned for. Raises DataError."""
        return None if self.board is None else find_board(self.board)

    @cached_property
    def _head(self) -> tuple[str, str]:
        return head_choice(self.head)

    def limits(self, stack: str | None = None) -> Limits:
        """What the options allow, with a reserved stack. Raises DataError."""
        if self.grad_bits not in (8, 16):
            raise DataError(f"gradients of {self.grad_bits} bits do not exist.", "Use 8 or 16.")
        if not 0.0 < self.alpha <= 1.0:
            raise DataError(f"alpha {self.alpha:g} is outside (0, 1].", f"The papers' value is {ALPHA:g}.")
        if self.min_elements < 0:
            raise DataError(f"a budget of {self.min_elements} elements is below zero.", "Give 0 or more.")
        choice(self.schedule, SCHEDULES, "--schedule")
        choice(self.recompute, RECOMPUTE, "--recompute")
        choice(self.sample, SAMPLE, "--sample")
        choice(self.weights, WEIGHTS, "--weights")
        budget = 0 if self.budget is None else parse_size(self.budget)
        if self.budget is not None and budget == 0:
            raise DataError("a budget of no bytes trains nothing.", "Leave out --budget, or use `run --head-only`.")
        asked = None if self.ram is None else parse_size(self.ram)
        total = with_limit(self.chip, asked) if self.chip is not None else asked if asked is not None else DEFAULT_RAM
        reserved = ledger.STACK_BYTES if stack in (None, BOUND) else ledger.align(parse_size(str(stack)), 8)
        return Limits(
            total,
            reserved,
            self.min_elements,
            self.alpha,
            self.grad_bits,
            self.schedule,
            self.recompute,
            self.sample,
            self.weights,
            self._head[1],
            () if self.chip is None else self.chip.areas,
            budget_bytes=budget,
            step_instructions=self.step_instructions,
            batch=check_batch(self.batch),
            static_bytes=ledger.STATIC_BYTES + (0 if self.chip is None else self.chip.port_bytes),
        )

    def options(self, stack: str | None = None) -> Options:
        """For the stages, on the host. Raises DataError."""
        choice(self.pixels, PIXELS, "--pixels")
        start, trained = self._head
        return Options(
            "host",
            self.limits(stack),
            self.pixels,
            head=start,
            ranking=self.ranking,
            seed=self.seed,
            split=self.split,
            board=self.chip,
            strategy=self.strategy,
            settings=settings(self.strategy, self.set_ or (), self.alpha, sampled_head=trained == "sampled"),
        )


def taking(record: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of a function whose last parameter is such a record: its fields are options of the command."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        *own, taken = inspect.signature(function, eval_str=True).parameters.values()
        hints = get_type_hints(record, include_extras=True)
        parts = {
            part.name: inspect.Parameter(
                part.name, inspect.Parameter.KEYWORD_ONLY, default=part.default, annotation=hints[part.name]
            )
            for part in fields(record)
        }

        @wraps(function)
        def command(**given: Any) -> None:
            part_of = {name: given.pop(name) for name in parts}
            function(**given, **{taken.name: record(**part_of)})

        ordered = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        command.__signature__ = inspect.Signature([*ordered, *parts.values()])  # type: ignore[attr-defined]
        return command

    return decorate


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
