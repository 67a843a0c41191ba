# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit codes: 0 done, 1 a check failed, 2 the input or the machine is at fault.

With --json a command prints one JSON object on standard output and nothing else there; progress and
messages go to standard error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medyate import __version__, artefact, data, ledger
from medyate.boards import BOARDS, CHIPS, TARGETS, Board, with_limit
from medyate.boards import find as find_board
from medyate.build.compile import APT
from medyate.data import AUTO, PIXELS
from medyate.errors import DataError, MedyateError
from medyate.plan.budget import ALPHA, HEADS, SAMPLE, WEIGHTS, Limits
from medyate.plan.recompute import RECOMPUTE
from medyate.plan.stream import SCHEDULES
from medyate.progress import Bar
from medyate.rank.cli import compare_rankings
from medyate.recipe import CLIP, RATE, check_clip
from medyate.stages import Options
from medyate.strategies import cli as strategies_cli
from medyate.study import cli as study_cli

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune a pretrained network on the microcontroller itself.",
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
console = Console(highlight=False, soft_wrap=True)
app.command()(strategies_cli.strategies)
app.add_typer(study_cli.app, name="study")

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
GradBits = Annotated[int, typer.Option(help="Bits of a stored gradient: 8 or 16.")]

StrategyName = Annotated[str, typer.Option("--strategy", help="How channels are chosen: `medyate strategies`.")]
SettingsText = Annotated[
    list[str] | None,
    typer.Option("--set", help="Of the strategy, NAME=VALUE: k, coverage, boost, scheme ... May be repeated."),
]

SIZE = re.compile(r"(\d+)\s*(|b|k|kb|kib|m|mb|mib)", re.IGNORECASE)
SAVING = ("--schedule", "--recompute", "--sample", "--weights")
BOUND = "bound"
RAM = "128KiB"
"""Where neither --ram nor --board says how much there is."""
UNITS = {"": 1, "b": 1, "k": 1024, "kib": 1024, "kb": 1000, "m": 1 << 20, "mib": 1 << 20, "mb": 10**6}


def parse_size(text: str) -> int:
    """Bytes of a size like 128KiB. Raises DataError."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise DataError(f"'{text}' is no size.", "Write it like 128KiB, 320kB or 131072.")
    return int(match.group(1)) * UNITS[match.group(2).lower()]


def _choice(value: str, allowed: tuple[str, ...], option: str) -> str:
    if value not in allowed:
        raise DataError(f"{option} '{value}' is unknown.", f"It is one of {', '.join(allowed)}.")
    return value


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{option} '{text}' is no number.", "Give one, or auto.") from error


def _head(text: str) -> tuple[str, str]:
    """(new or keep, full or sampled) of --head. Raises DataError."""
    parts = text.split(",")
    for part in parts:
        _choice(part, ("new", "keep", *HEADS), "--head")
    starts, trained = [p for p in parts if p not in HEADS], [p for p in parts if p in HEADS]
    if len(starts) > 1 or len(trained) > 1:
        raise DataError(f"--head '{text}' contradicts itself.", "Give new or keep, and full or sampled.")
    return (*starts, "new")[0], (*trained, "full")[0]


def _limits(
    memory: tuple[str | None, Board | None],
    min_elements: int,
    alpha: float,
    grad_bits: int,
    saving: tuple[str, str, str, str],
    head: str,
    stack: str | None = None,
    budget: str | None = None,
    instructions: int = 0,
) -> Limits:
    """`memory`: --ram and the board; `head`: one of HEADS."""
    if grad_bits not in (8, 16):
        raise DataError(f"gradients of {grad_bits} bits do not exist.", "Use 8 or 16.")
    if not 0.0 < alpha <= 1.0:
        raise DataError(f"alpha {alpha:g} is outside (0, 1].", f"The papers' value is {ALPHA:g}.")
    if min_elements < 0:
        raise DataError(f"a budget of {min_elements} elements is below zero.", "Give 0 or more.")
    for value, allowed, option in zip(saving, (SCHEDULES, RECOMPUTE, SAMPLE, WEIGHTS), SAVING, strict=True):
        _choice(value, allowed, option)
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
    )


def _print(content: dict[str, Any], as_json: bool, human: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(content))
    else:
        human()


@app.command()
def doctor(json_: Json = False) -> None:
    """What is installed, what is missing, and the command that installs it."""
    tools = {
        "cc": "apt-get install gcc",
        "make": "apt-get install make",
        "arm-none-eabi-gcc": APT,
        "qemu-system-arm": APT,
    }
    packages = {
        "torch": "pip install 'medyate[torch]'",
        "onnx": "pip install 'medyate[onnx]'",
        "PIL": "pip install pillow",
        "platformio": "pip install platformio",
        "matplotlib": "pip install 'medyate[report]'",
        "sklearn": "pip install 'medyate[digits]'",
    }
    rows = [(name, shutil.which(name) is not None, fix) for name, fix in tools.items()]
    rows += [(name, importlib.util.find_spec(name) is not None, fix) for name, fix in packages.items()]
    content = {name: {"installed": found, "install": fix} for name, found, fix in rows}

    def human() -> None:
        for name, found, fix in rows:
            console.print(f"{'ok     ' if found else 'MISSING'}  {name}" + ("" if found else f"    {fix}"))

    _print(content, json_, human)
    if not all(found for _, found, _ in rows):
        raise typer.Exit(2)


@app.command()
def boards(json_: Json = False) -> None:
    """Every chip that --board plans for, and every target that `compile` builds for."""
    from medyate.report.boards import lines

    content = {name: board.to_json() for name, board in BOARDS.items()}
    _print(content, json_, lambda: console.print("\n".join(lines()), markup=False))


@app.command()
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

    _print(content, json_, human)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile` in which `run` trained.")],
    to: Annotated[Path, typer.Option("-o", "--out", help="FILE.tflite or FILE.onnx.")],
    flash: Annotated[Path | None, typer.Option(help="Bank image; default: OUT/flash.bin.")] = None,
    log: Annotated[Path | None, typer.Option(help="Run log; default: OUT/run.json.")] = None,
    on: Annotated[str | None, typer.Option(help="Ask a live target: host, qemu or serial:PORT.")] = None,
    json_: Json = False,
) -> None:
    """The trained network as an int8 model file, from the newest generation in flash or of a live target."""
    from medyate.export.command import export_trained

    content = export_trained(out, to, flash or out / "flash.bin", log or out / "run.json", on)

    def human() -> None:
        console.print(
            f"wrote {to}: {content['bytes']:,} B, generation {content['generation']} "
            f"of epoch {content['epochs']}, {content['classes']} classes"
        )

    _print(content, json_, human)


@app.command()
def verify(
    model: Model,
    data_: Annotated[str | None, typer.Option("--data", help="Class folders or an .npz; default: noise.")] = None,
    on: Annotated[str, typer.Option(help=f"{', '.join(TARGETS)}.")] = "host",
    samples: Annotated[int | None, typer.Option(min=1, help="Default: 200, on QEMU 10.")] = None,
    pixels: Pixels = AUTO,
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """Runs the whole network in C and compares with the format's own runtime; exit code 1: no match."""
    from medyate.check import check

    _choice(on, TARGETS, "--on")
    _choice(pixels, PIXELS, "--pixels")
    dataset = None if data_ is None else data.load(data_, split)
    with Bar() as bar:
        report = check(model, on, samples or (200 if on == "host" else 10), dataset, pixels, seed, bar.show)

    def human() -> None:
        table = Table("figure", "value", show_header=False)
        for name, value in report.to_json().items():
            if value is not None and value != ():
                table.add_row(name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
        console.print(table)

    _print(report.to_json(), json_, human)
    if not report.match:
        raise typer.Exit(1)


@app.command()
def rank(
    files: Annotated[list[Path], typer.Argument(help="A model; with --compare, rankings of one network.")],
    data_: Annotated[str | None, typer.Option("--data", help="Class folders, an .npz, or 'digits'.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The ranking; with --compare, a picture.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Spearman's correlation of stored rankings.")] = False,
    pixels: Pixels = AUTO,
    epochs: int = 3,
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """LaRa and TraDy scores of every layer by a short fine-tuning on this machine."""
    if compare:
        compare_rankings(files, out, json_)
        return
    if len(files) != 1 or data_ is None or out is None:
        raise DataError("a ranking needs one model, --data and -o.", "Give them, or --compare with stored rankings.")
    from medyate import frontends
    from medyate.stages import make_ranking, prepare

    if epochs < 1:
        raise DataError("ranking needs at least one epoch.", "Check --epochs.")
    _choice(pixels, PIXELS, "--pixels")
    dataset = data.load(data_, split)
    normal, _, _, dataset, meaning = prepare(frontends.load(files[0]), dataset, pixels)
    options = Options("host", Limits(0), pixels, rank_epochs=epochs, seed=seed)
    with Bar() as bar:
        ranking, _ = make_ranking(normal, dataset, meaning, options, bar.show)
    artefact.write_json(out, ranking.to_json())

    def human() -> None:
        table = Table("rank", "layer", "LaRa", "TraDy", "elements")
        for i, s in enumerate(ranking.scores):
            table.add_row(str(i + 1), s.layer, f"{s.lara:.3e}", f"{s.trady:.3e}", f"{s.elements:,}")
        console.print(table)

    _print(ranking.to_json(), json_, human)


@app.command()
def plan(
    model: Model,
    data_: Data,
    ram: Ram = None,
    board: BoardName = None,
    frontier: Annotated[bool, typer.Option("--frontier", help="What every amount of RAM gives, up to --ram.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for plan.json and both pictures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="A picture: FILE.svg or FILE.png.")] = None,
    min_elements: MinElements = 0,
    budget: Budget = None,
    step_instructions: StepInstructions = 0,
    alpha: Alpha = ALPHA,
    pixels: Pixels = AUTO,
    head: HeadChoice = "new",
    ranking: RankingFile = None,
    grad_bits: GradBits = 8,
    schedule: RowSchedule = "auto",
    recompute: Recompute = "none",
    sample: Sample = "auto",
    weights: WeightPlace = "flash",
    strategy: StrategyName = "medyate",
    set_: SettingsText = None,
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """Bytes by region and area, peak, what would lower it, flash; or the frontier. Nothing is built."""
    from medyate.planning import Pictures, plan_frontier, plan_one
    from medyate.report.plan import print_frontier, print_plan
    from medyate.strategies.settings import settings

    _choice(pixels, PIXELS, "--pixels")
    start, trained = _head(head)
    chip = None if board is None else find_board(board)
    limits = _limits(
        (ram, chip),
        min_elements,
        alpha,
        grad_bits,
        (schedule, recompute, sample, weights),
        trained,
        None,
        budget,
        step_instructions,
    )
    options = Options(
        "host",
        limits,
        pixels,
        head=start,
        ranking=ranking,
        seed=seed,
        strategy=strategy,
        settings=settings(strategy, set_ or (), alpha, sampled_head=trained == "sampled"),
    )
    pictures = Pictures(out, picture)
    dataset = data.load(data_, split)
    with Bar() as bar:
        if frontier:
            most = None if ram is None and chip is None else limits.ram_bytes
            content = plan_frontier(model, dataset, options, most, pictures, bar.show)
        else:
            content = plan_one(model, dataset, options, chip, pictures, bar.show)
    _print(content, json_, lambda: print_frontier(content, console) if frontier else print_plan(content, console))


@app.command()
def compile(
    model: Model,
    data_: Data,
    out: Out,
    target: Annotated[str, typer.Option(help=f"{', '.join(TARGETS)}.")] = "host",
    ram: Ram = None,
    board: BoardName = None,
    min_elements: MinElements = 0,
    budget: Budget = None,
    step_instructions: StepInstructions = 0,
    alpha: Alpha = ALPHA,
    pixels: Pixels = AUTO,
    head: HeadChoice = "new",
    ranking: RankingFile = None,
    grad_bits: GradBits = 8,
    schedule: RowSchedule = "auto",
    recompute: Recompute = "none",
    sample: Sample = "auto",
    weights: WeightPlace = "flash",
    strategy: StrategyName = "medyate",
    set_: SettingsText = None,
    stack: Annotated[
        str | None,
        typer.Option(help="Reserved stack; 'bound': plan again with what the first image needs. Default: 2KiB."),
    ] = None,
    board_ram: Annotated[str | None, typer.Option(help="RAM in the linker script; default: --ram.")] = None,
    builder: Annotated[str, typer.Option(help="platformio or make, for boards.")] = "platformio",
    rounding: Annotated[
        str,
        typer.Option(help="Of sums: once (onnxruntime), twice (TFLite), auto (as the file). Tables stay as imported."),
    ] = "auto",
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """All stages up to a built image; every stage leaves its artefact in the folder."""
    from medyate.report.plan import print_banks, print_table
    from medyate.stages import compile_model
    from medyate.strategies.settings import settings

    _choice(target, TARGETS, "--target")
    _choice(pixels, PIXELS, "--pixels")
    start, trained = _head(head)
    _choice(builder, ("platformio", "make"), "--builder")
    _choice(rounding, ("auto", "once", "twice"), "--rounding")
    chip = None if board is None else find_board(board)
    limits = _limits(
        (ram, chip),
        min_elements,
        alpha,
        grad_bits,
        (schedule, recompute, sample, weights),
        trained,
        stack,
        budget,
        step_instructions,
    )
    if stack == BOUND and target == "host":
        raise DataError("this machine's stack says nothing of a device's.", "Give another --target, or --stack BYTES.")
    linked = None if board_ram is None else parse_size(board_ram)
    if linked == 0:
        raise DataError("a board without RAM cannot run anything.", "Leave --board-ram out, or give its size.")
    if linked is not None and chip is not None:
        raise DataError(f"--board {chip.name} says already how much RAM is linked against.", "Leave --board-ram out.")
    options = Options(
        target,
        limits,
        pixels,
        rounding,
        start,
        ranking=ranking,
        builder=builder,
        seed=seed,
        split=split,
        board_ram_bytes=linked,
        board=chip,
        strategy=strategy,
        settings=settings(strategy, set_ or (), alpha, sampled_head=trained == "sampled"),
        tight=stack == BOUND,
    )
    dataset = data.load(data_, split)
    with Bar() as bar:
        made, image = compile_model(model, dataset, options, out, bar.show)
    content = {
        **made.to_json(),
        "board": board,
        "banks": artefact.read_json(out / "model.json")["banks"],
        "target": target,
        "image": str(image.path),
        "static_bytes": image.static_bytes,
        "flash_bytes": image.flash_bytes,
    }

    def human() -> None:
        print_table(content, console)
        if content["banks"] is not None:
            print_banks(content["banks"], content["board"], console)
        console.print(f"built {image.path}" + (f", {image.flash_bytes:,} B of flash" if image.flash_bytes else ""))

    _print(content, json_, human)


@app.command()
def run(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile`.")],
    data_: Data,
    on: Annotated[str, typer.Option(help="host, qemu or serial:PORT.")] = "host",
    epochs: int = 10,
    rate: Annotated[str, typer.Option(help="Peak learning rate, or auto: by short trials on the target.")] = str(RATE),
    clip: Annotated[
        float | None, typer.Option(help=f"Largest norm of a layer's gradient in one step; 0: any. Default: {CLIP:g}.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="cosine (with a warm-up of one epoch) or constant.")] = "cosine",
    limit: Annotated[int | None, typer.Option(help="Training samples per epoch.")] = None,
    head_only: bool = False,
    flip: Annotated[bool, typer.Option(help="Random flips on the device.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from what the flash holds.")] = False,
    no_measure: Annotated[bool, typer.Option(help="Leave out the memory marks.")] = False,
    evaluate_at_end: Annotated[bool, typer.Option(help="Do not evaluate after every epoch.")] = False,
    flash: Annotated[Path | None, typer.Option(help="Flash file; default: OUT/flash.bin.")] = None,
    seed: Seed = 0,
    log: Annotated[Path | None, typer.Option(help="Run log.")] = None,
    json_: Json = False,
) -> None:
    """Trains on the target, evaluates there, measures its memory, writes the run log."""
    from medyate.run.session import Training
    from medyate.run.train import Compiled, RunOptions, Tick, epoch_samples
    from medyate.run.train import run as run_target

    _choice(schedule, ("cosine", "constant"), "--schedule")
    peak = RATE if rate == "auto" else _number(rate, "--rate")
    if rate == "auto" and resume:
        raise DataError("a resumed training goes on at its own rate.", "Resume without --rate auto.")
    if epochs < 1 or not 1e-9 < peak < 1024.0 or (limit is not None and limit < 1):
        raise DataError("epochs, rate and limit must be above zero.", "Check --epochs, --rate and --limit.")
    if rate == "auto" and clip is not None:
        raise DataError("--rate auto finds the clip, too.", "Leave out --clip, or give a rate.")
    bound = check_clip(CLIP if clip is None else clip)
    compiled = Compiled.read(out)
    store = flash or out / "flash.bin"
    written = log or out / "run.json"
    for path in (written, store):  # before hours of training, not after
        artefact.check_writable(path)
    dataset = data.load(data_, float(compiled.model["split"]))
    count = epoch_samples(dataset, limit)
    if epochs * count >= 2**32:
        raise DataError(f"{epochs:,} epochs of {count:,} samples are too many steps.", "Check --epochs.")
    training = Training(peak, epochs, count, schedule, 1.0, seed, head_only, flip, not resume, bound)
    options = RunOptions(
        on,
        training,
        store,
        limit,
        evaluate_each=not evaluate_at_end,
        find_rate=rate == "auto",
        measure=not no_measure and not on.startswith("serial"),
        tell=lambda text: errors.print(f"medyate: {text}.", markup=False),
        history=tuple(artefact.read_json(written)["history"]) if resume and written.exists() else (),
    )
    with Bar() as bar:

        def show(tick: Tick) -> None:
            note = f"accuracy {tick.accuracy:.3f}" + (f"  loss {tick.loss:.3f}" if tick.loss else "")
            bar.show(tick.phase, tick.done, tick.total, note)

        result = run_target(compiled, dataset, options, show)
    artefact.write_json(written, result)

    def human() -> None:
        what = "loss" if result["accuracy_before"] is None else "accuracy"
        console.print(
            f"{what} {result[f'{what}_before']:.4f} -> {result[f'{what}_after']:.4f} in {result['epochs']} epochs; "
            f"digest {result['digest']}"
        )
        if result.get("arena_measured_bytes"):
            console.print(
                f"arena measured {result['arena_measured_bytes']:,} B, planned {result['arena_planned_bytes']:,} B; "
                f"stack {result['stack_bytes']:,} B; used {result['ram_used_bytes']:,} of "
                f"{result['ram_limit_bytes']:,} B"
            )
        worn = result["flash"]
        if worn:
            sectors = worn["sector_erases"]
            most = f"; at most {max(sectors)} erases of one sector" if sectors else ""
            console.print("flash: bank 0 erased {} times, bank 1 {}".format(*worn["bank_erases"]) + most)
        if result["instructions_per_step"]:
            console.print(f"{result['instructions_per_step']:,} instructions per training step")

    _print(result, json_, human)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="A folder in which `run` has left its log.")],
    picture: Annotated[Path | None, typer.Option("-o", "--out", help="A PNG; default: OUT/report.png.")] = None,
    json_: Json = False,
) -> None:
    """Accuracy, memory map, LaRa scores and selected channels of the last run, as a picture."""
    from medyate.report.picture import draw

    log = artefact.read_json(out / "run.json")
    path = picture or out / "report.png"
    label = "head only" if log["head_only"] else "selected channels and head"
    plan, ranking = artefact.read_json(out / "05_plan.json"), artefact.read_json(out / "04_ranking.json")
    draw(plan, ranking, [(label, log)], None, path)
    _print({"picture": str(path)}, json_, lambda: console.print(f"wrote {path}"))


@app.command()
def version(json_: Json = False) -> None:
    """The version of medyate."""
    _print({"version": __version__}, json_, lambda: console.print(__version__))


def main() -> None:
    """Runs the command line; the user's mistakes end in two sentences and exit code 2."""
    # Worker threads that spin while they wait starve everything else on a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except MedyateError as error:
        errors.print(f"medyate: {error.what}", markup=False)
        errors.print(f"  {error.remedy}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("medyate: stopped.")
        sys.exit(130)


if __name__ == "__main__":
    main()
