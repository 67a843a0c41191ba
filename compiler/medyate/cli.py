# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit codes: 0 done, 1 a check failed, 2 the input or the machine is at fault.

With --json a command prints one JSON object on standard output and nothing else there; progress and
messages go to standard error.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from medyate import __version__, arguments, artefact, data, extras, files
from medyate.arguments import (
    BOUND,
    Alpha,
    Batch,
    Baud,
    BoardName,
    Budget,
    Data,
    GradBits,
    HeadChoice,
    Json,
    LinkKey,
    MinElements,
    Model,
    Out,
    Pixels,
    Ram,
    RankingFile,
    Recompute,
    RowSchedule,
    Sample,
    Seed,
    SettingsText,
    Split,
    StepInstructions,
    StrategyName,
    WeightPlace,
    choice,
    head_choice,
    link_key,
    parse_size,
    show,
    tell,
    warn,
)
from medyate.boards import BOARDS, TARGETS
from medyate.boards import find as find_board
from medyate.build.compile import APT, check_tools
from medyate.data import AUTO, PIXELS
from medyate.errors import ArtefactError, DataError, MedyateError
from medyate.plan.budget import ALPHA, Limits
from medyate.progress import Bar
from medyate.rank.cli import compare_rankings
from medyate.run import cli as run_cli
from medyate.run.transport import BAUD
from medyate.stages import Options, warnings
from medyate.strategies import cli as strategies_cli
from medyate.study import cli as study_cli
from medyate.terminal import console, errors

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune a pretrained network on the microcontroller itself.",
)
app.command()(strategies_cli.strategies)
app.command()(run_cli.run)
app.command()(run_cli.reset)
app.add_typer(study_cli.app, name="study")


@app.command()
def doctor(json_: Json = False) -> None:
    """What is installed, what is missing, and the command that installs it."""
    tools = {
        "cc": "apt-get install gcc",
        "make": "apt-get install make",
        "arm-none-eabi-gcc": APT,
        "qemu-system-arm": APT,
    }
    modules = dict.fromkeys(("PIL", "platformio", *itertools.chain(*extras.EXTRAS.values())))
    rows = [(name, shutil.which(name) is not None, fix) for name, fix in tools.items()]
    rows += [(name, extras.installed(name), extras.install([name])) for name in modules]
    content = {name: {"installed": found, "install": fix} for name, found, fix in rows}

    def human() -> None:
        for name, found, fix in rows:
            console.print(f"{'ok     ' if found else 'MISSING'}  {name}" + ("" if found else f"    {fix}"))

    show(content, json_, human)
    if not all(found for _, found, _ in rows):
        raise typer.Exit(2)


@app.command()
def boards(json_: Json = False) -> None:
    """Every chip that --board plans for, and every target that `compile` builds for."""
    from medyate.report.boards import lines

    content = {name: board.to_json() for name, board in BOARDS.items()}
    show(content, json_, lambda: console.print("\n".join(lines())))


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

    show(content, json_, human)


@app.command()
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
    from medyate.check import check, check_installed

    choice(on, TARGETS, "--on")
    choice(pixels, PIXELS, "--pixels")
    check_installed(model, on)
    dataset = None if data_ is None else data.load(data_, split)
    with Bar() as bar:
        report = check(model, on, samples or (200 if on == "host" else 10), dataset, pixels, seed, bar.show)

    def human() -> None:
        table = Table("figure", "value", show_header=False)
        for name, value in report.to_json().items():
            if value is not None and value != ():
                table.add_row(name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
        console.print(table)

    show({**report.to_json(), "warnings": warn(() if dataset is None else dataset.warnings())}, json_, human)
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
    from medyate.stages import check_packages, make_ranking, prepare

    if epochs < 1:
        raise DataError("ranking needs at least one epoch.", "Check --epochs.")
    choice(pixels, PIXELS, "--pixels")
    check_packages(files[0])
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

    show({**ranking.to_json(), "warnings": warn(warnings(dataset, len(ranking.scores)))}, json_, human)


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
    batch: Batch = 1,
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
    from medyate.stages import check_packages
    from medyate.strategies.settings import settings

    choice(pixels, PIXELS, "--pixels")
    start, trained = head_choice(head)
    chip = None if board is None else find_board(board)
    limits = arguments.limits(
        (ram, chip),
        min_elements,
        alpha,
        grad_bits,
        (schedule, recompute, sample, weights),
        trained,
        None,
        budget,
        step_instructions,
        batch,
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
    check_packages(model)
    dataset = data.load(data_, split)
    with Bar() as bar:
        if frontier:
            most = None if ram is None and chip is None else limits.ram_bytes
            content = plan_frontier(model, dataset, options, most, pictures, bar.show)
        else:
            content = plan_one(model, dataset, options, chip, pictures, bar.show)
    warn(content["warnings"])
    show(content, json_, lambda: print_frontier(content, console) if frontier else print_plan(content, console))


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
    batch: Batch = 1,
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
    link_key_: LinkKey = None,
    seed: Seed = 0,
    split: Split = 0.25,
    json_: Json = False,
) -> None:
    """All stages up to a built image; every stage leaves its artefact in the folder."""
    from medyate.report.plan import print_banks, print_table
    from medyate.run import held
    from medyate.stages import check_packages, compile_model
    from medyate.strategies.settings import settings

    choice(target, TARGETS, "--target")
    choice(pixels, PIXELS, "--pixels")
    start, trained = head_choice(head)
    choice(builder, ("platformio", "make"), "--builder")
    choice(rounding, ("auto", "once", "twice"), "--rounding")
    chip = None if board is None else find_board(board)
    limits = arguments.limits(
        (ram, chip),
        min_elements,
        alpha,
        grad_bits,
        (schedule, recompute, sample, weights),
        trained,
        stack,
        budget,
        step_instructions,
        batch,
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
        link_key=link_key(link_key_),
    )
    check_packages(model)
    check_tools(target, builder)
    dataset = data.load(data_, split)
    with Bar() as bar:
        made, image = compile_model(model, dataset, options, out, bar.show, tell)
    flash = out / "flash.bin"
    stale = held.strangers(held.find(flash.read_bytes()), made.digest) if flash.is_file() else ""
    if stale:
        tell(f"'{flash}' holds {stale}, with which this model cannot go on")
    content = {
        **made.to_json(),
        "board": board,
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


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="A folder in which `run` has left its log.")],
    picture: Annotated[Path | None, typer.Option("-o", "--out", help="A PNG; default: OUT/report.png.")] = None,
    json_: Json = False,
) -> None:
    """Accuracy, memory map, LaRa scores and selected channels of the last run, as a picture."""
    from medyate.report.figure import check_picture
    from medyate.report.picture import draw_last_run

    path = picture or out / "report.png"
    check_picture(path)
    with files.boundary(ArtefactError, f"plan, ranking and log in '{out}' do not fit each other", "Make them again."):
        draw_last_run(out, path)
    show({"picture": str(path)}, json_, lambda: console.print(f"wrote {path}"))


@app.command()
def version(json_: Json = False) -> None:
    """The version of medyate."""
    show({"version": __version__}, json_, lambda: console.print(__version__))


def _refuse(error: MedyateError) -> NoReturn:
    errors.print(f"medyate: {error.what}")
    errors.print(f"  {error.remedy}")
    sys.exit(2)


def main() -> None:
    """Runs the command line; the user's mistakes end in two sentences and exit code 2."""
    # Worker threads that spin while they wait starve everything else on a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except MedyateError as error:
        _refuse(error)
    except ImportError as error:
        missing = extras.told(error)
        if missing is None:
            raise
        _refuse(missing)
    except KeyboardInterrupt:
        errors.print("medyate: stopped.")
        sys.exit(130)


if __name__ == "__main__":
    main()
