# SPDX-License-Identifier: Apache-2.0
"""What users choose for a plan, a build and a training, as words and numbers; what the stages take follows from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from medyate import ledger
from medyate.assets import families
from medyate.boards import BOARDS, TARGETS, Board, with_limit
from medyate.boards import find as find_board
from medyate.build.project import APP, APPS
from medyate.datasets import AUTO, PIXELS
from medyate.emit.emitter import PREFIX, check_prefix
from medyate.errors import DataError
from medyate.plan.budget import ALPHA, HEADS, SAMPLE, WEIGHTS, Limits
from medyate.plan.recompute import RECOMPUTE
from medyate.plan.stream import SCHEDULES
from medyate.recipe import check_batch
from medyate.stages import Options
from medyate.strategies.settings import settings

SIZE = re.compile(r"(\d+)\s*(|b|k|kb|kib|m|mb|mib)", re.IGNORECASE)
UNITS = {"": 1, "b": 1, "k": 1024, "kib": 1024, "kb": 1000, "m": 1 << 20, "mib": 1 << 20, "mb": 10**6}
BOUND = "bound"
"""A stack of what the first image needs."""
DEFAULT_RAM = 128 << 10
"""Where neither an amount nor a board says how much there is."""
BUILDERS = ("platformio", "make")
ROUNDINGS = ("auto", "once", "twice")
KEY_DIGITS = 1024
"""Characters of a key's file that are looked at."""


def parse_size(text: str) -> int:
    """Bytes of a size like 128KiB. Raises DataError."""
    match = SIZE.fullmatch(str(text).strip())  # a plain number from Python, too
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


def choice(value: str, allowed: Sequence[str], option: str) -> str:
    """The value of an option, one of those allowed. Raises DataError."""
    if value not in allowed:
        raise DataError(f"{option} '{value}' is unknown.", f"It is one of {', '.join(allowed)}.")
    return value


def head_choice(text: str) -> tuple[str, str]:
    """(new or keep, full or sampled) of --head. Raises DataError."""
    parts = text.split(",")
    for part in parts:
        choice(part, ("new", "keep", *HEADS), "--head")
    starts, trained = [p for p in parts if p not in HEADS], [p for p in parts if p in HEADS]
    if len(starts) > 1 or len(trained) > 1:
        raise DataError(f"--head '{text}' contradicts itself.", "Give new or keep, and full or sampled.")
    return (*starts, "new")[0], (*trained, "full")[0]


def check_seed(seed: int) -> int:
    """A seed of random numbers. Raises DataError."""
    if not 0 <= seed <= 0xFFFFFFFF:
        raise DataError(f"a seed of {seed} is outside of 32 bits.", "Give 0 to 4294967295.")
    return seed


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Of a plan; each as the command line's option of that name."""

    ram: str | None = None
    board: str | None = None
    min_elements: int = 0
    budget: str | None = None
    max_step_instructions: int = 0
    alpha: float = ALPHA
    pixels: str = AUTO
    head: str = "new"
    output: str = ""
    ranking: Path | None = None
    grad_bits: int = 8
    batch: int = 1
    schedule: str = "auto"
    recompute: str = "none"
    sample: str = "auto"
    weights: str = "flash"
    strategy: str = "medyate"
    set_: list[str] | None = None
    seed: int = 0
    split: float = 0.25

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
        if self.max_step_instructions < 0:
            raise DataError(f"a step of {self.max_step_instructions} instructions cannot be.", "Give 0 for no limit.")
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
            step_instructions=self.max_step_instructions,
            batch=check_batch(self.batch),
            static_bytes=ledger.STATIC_BYTES + (0 if self.chip is None else self.chip.port_bytes),
        )

    def options(self, stack: str | None = None) -> Options:
        """For the stages, on the host. Raises DataError."""
        choice(self.pixels, PIXELS, "--pixels")
        check_seed(self.seed)
        start, trained = self._head
        return Options(
            "host",
            self.limits(stack),
            self.pixels,
            head=start,
            output=self.output,
            ranking=self.ranking,
            seed=self.seed,
            split=self.split,
            board=self.chip,
            strategy=self.strategy,
            settings=settings(self.strategy, self.set_ or (), self.alpha, sampled_head=trained == "sampled"),
        )


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Of a program; each as the command line's option of that name."""

    target: str = "host"
    stack: str | None = None
    board_ram: str | None = None
    builder: str = BUILDERS[0]
    rounding: str = ROUNDINGS[0]
    name: str = PREFIX
    kernels: str | None = None
    app: str = APP
    link_key: str | None = None

    def options(self, planned: PlanOptions) -> Options:
        """For the stages, up to a program. Raises DataError."""
        choice(self.target, TARGETS, "--target")
        choice(self.builder, BUILDERS, "--builder")
        choice(self.rounding, ROUNDINGS, "--rounding")
        choice(self.app, tuple(APPS), "--app")
        if self.kernels is not None:
            choice(self.kernels, families(), "--kernels")
        if BOARDS[self.target].is_real:
            if planned.board not in (None, self.target):
                raise DataError(f"an image for {self.target} is planned for its own memory.", "Leave --board out.")
            planned = replace(planned, board=self.target)
        options = replace(
            planned.options(self.stack),
            target=self.target,
            rounding=self.rounding,
            builder=self.builder,
            board_ram_bytes=None if self.board_ram is None else parse_size(self.board_ram),
            tight=self.stack == BOUND,
            kernels=self.kernels,
            app=self.app,
            link_key=link_key(self.link_key),
            prefix=check_prefix(self.name),
        )
        if options.tight and self.target == "host":
            raise DataError(
                "this machine's stack says nothing of a device's.", "Give another --target, or --stack BYTES."
            )
        if options.board_ram_bytes == 0:
            raise DataError("a board without RAM cannot run anything.", "Leave --board-ram out, or give its size.")
        if options.board_ram_bytes is not None and options.board is not None:
            raise DataError(
                f"--board {options.board.name} says already how much RAM is linked against.", "Leave --board-ram out."
            )
        return options
