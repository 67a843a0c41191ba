# SPDX-License-Identifier: Apache-2.0
"""`medyate run`: trains a compiled network on its target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medyate import artefact, data
from medyate.arguments import Data, Json, Seed, choice, console, errors, number, show, warn
from medyate.errors import DataError
from medyate.progress import Bar
from medyate.recipe import CLIP, RATE, check_clip

LOG: artefact.Form = {"history": [{"epoch": artefact.count}]}
"""A run log, as far as a resumed run reads it."""


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

    choice(schedule, ("cosine", "constant"), "--schedule")
    peak = RATE if rate == "auto" else number(rate, "--rate")
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
    warnings = warn(dataset.warnings())
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
        history=tuple(artefact.read_json(written, LOG)["history"]) if resume and written.exists() else (),
    )
    with Bar() as bar:

        def tell(tick: Tick) -> None:
            note = f"accuracy {tick.accuracy:.3f}" + (f"  loss {tick.loss:.3f}" if tick.loss else "")
            bar.show(tick.phase, tick.done, tick.total, note)

        result = run_target(compiled, dataset, options, tell)
    result["warnings"] = warnings
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

    show(result, json_, human)
