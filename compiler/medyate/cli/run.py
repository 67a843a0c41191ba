# SPDX-License-Identifier: Apache-2.0
"""`medyate run`: trains a compiled network on its target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medyate import artefact, data
from medyate.cli.options import Baud, Data, Json, LinkKey, Seed, choice, link_key, number, show, warn
from medyate.cli.options import tell as say
from medyate.errors import ArtefactError, DataError
from medyate.progress import Bar
from medyate.recipe import CLIP, RATE, check_augmentation, check_clip
from medyate.run.transport import BAUD
from medyate.terminal import console

AUTO = "auto"
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def reset(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile`.")],
    on: Annotated[str, typer.Option(help="host, qemu or serial:PORT.")] = "host",
    wipe: Annotated[bool, typer.Option(help="Erase every byte of the flash reserved for what is learned.")] = False,
    flash: Annotated[Path | None, typer.Option(help="Flash file; default: OUT/flash.bin.")] = None,
    baud: Baud = BAUD,
    link_key_: LinkKey = None,
    json_: Json = False,
) -> None:
    """Forgets what the target has learned: it starts from the factory weights."""
    from medyate.run.train import Compiled, connect

    compiled = Compiled.read(out)
    if compiled.weights_in_ram:
        raise DataError("this model keeps its weights in RAM: nothing outlives its program.", "Restart it.")
    store = flash or out / "flash.bin"
    if not on.startswith("serial:") and not store.exists():
        raise DataError(f"'{store}' is not there: nothing was learned.", "Give --flash, or --on serial:PORT.")
    key = link_key(link_key_)
    with artefact.lock(out, busy(out)), connect(compiled, on, store, count=False, baud=baud, key=key) as session:
        session.begin_inference()
        session.reset(wipe=wipe)
    done = "wiped" if wipe else "reset"
    show({"flash": done}, json_, lambda: console.print(f"{done}: the next start is from the factory weights"))


def run(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile`.")],
    data_: Data,
    on: Annotated[str, typer.Option(help="host, qemu or serial:PORT.")] = "host",
    epochs: int = 10,
    rate: Annotated[
        str, typer.Option(help=f"Peak learning rate, like {RATE:g}, or auto: by short trials on the target.")
    ] = AUTO,
    clip: Annotated[
        float | None,
        typer.Option(help=f"Largest norm of a layer's gradient in a step; 0: no limit. Default: {CLIP:g}."),
    ] = None,
    schedule: Annotated[str, typer.Option(help="cosine (with a warm-up of one epoch) or constant.")] = "cosine",
    limit: Annotated[int | None, typer.Option(help="Training samples per epoch.")] = None,
    head_only: bool = False,
    flip: Annotated[
        bool | None,
        typer.Option(help="Flip images at random, on the device. Default: if trials show no harm; never with a rate."),
    ] = None,
    shift: Annotated[int, typer.Option(help="Largest random move of training samples, in pixels.")] = 0,
    smoothing: Annotated[float, typer.Option(help="Share of each label that is spread over all classes.")] = 0.0,
    resume: Annotated[
        bool | None,
        typer.Option(
            help="Go on from what the flash holds. Default: start afresh, and go on when the target restarts; "
            "--no-resume ends the run then."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what the flash holds.")] = False,
    guard: Annotated[
        bool, typer.Option(help="Do not commit an epoch that made the network worse: keep the accepted one and end.")
    ] = True,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="End when so many epochs brought nothing on a tenth of the training samples, which is held out, and "
            "keep the best epoch: it is trained again where later ones have taken its place.",
        ),
    ] = None,
    no_measure: Annotated[bool, typer.Option(help="Do not measure memory use.")] = False,
    evaluate_at_end: Annotated[bool, typer.Option(help="Do not evaluate after every epoch.")] = False,
    flash: Annotated[Path | None, typer.Option(help="Flash file; default: OUT/flash.bin.")] = None,
    baud: Baud = BAUD,
    link_key_: LinkKey = None,
    seed: Seed = 0,
    log: Annotated[Path | None, typer.Option(help="Run log; default: OUT/run.json.")] = None,
    json_: Json = False,
) -> None:
    """Trains on the target, evaluates there, measures its memory, writes the run log.

    A flash that holds a generation is neither used nor discarded unless --resume or --fresh says so.
    """
    from medyate.run.feed import Tick
    from medyate.run.log import check_place, head_only_accuracy, read_log
    from medyate.run.session import Training
    from medyate.run.train import Compiled, RunOptions, epoch_samples
    from medyate.run.train import run as run_target

    choice(schedule, ("cosine", "constant"), "--schedule")
    peak = RATE if rate == AUTO else number(rate, "--rate")
    if resume and fresh:
        raise DataError("--resume and --fresh contradict each other.", "Give one of them.")
    if epochs < 1 or not 1e-9 < peak < 1024.0 or (limit is not None and limit < 1):
        raise DataError("epochs, rate and limit must be above zero.", "Check --epochs, --rate and --limit.")
    if rate == AUTO and clip is not None:
        raise DataError(
            "--rate auto, the default, finds the clip, too.", f"Give a rate, like {RATE:g}, or leave out --clip."
        )
    bound = check_clip(CLIP if clip is None else clip)
    compiled = Compiled.read(out)
    store = flash or out / "flash.bin"
    written = log or out / "run.json"
    check_place(written)  # before hours of training, not after
    artefact.check_writable(store)
    digest = int(compiled.model["digest"])
    earlier = read_log(written, digest) if resume and written.exists() else None
    dataset = data.load(data_, float(compiled.model["split"]))
    warnings = warn(dataset.warnings())
    count = epoch_samples(dataset, limit, early_stop)
    if epochs * count >= 2**32:
        raise DataError(f"{epochs:,} epochs of {count:,} samples are too many steps.", "Check --epochs.")
    check_augmentation(shift, smoothing)
    training = Training(
        peak, epochs, count, schedule, 1.0, seed, head_only, flip is True, shift, smoothing, not resume, bound
    )
    options = RunOptions(
        on,
        training,
        store,
        limit,
        evaluate_each=not evaluate_at_end,
        find_rate=rate == AUTO,
        find_flip=rate == AUTO and flip is None,
        guard=guard,
        early_stop=early_stop,
        go_on=resume is not False,
        baud=baud,
        key=link_key(link_key_),
        measure=not no_measure and not on.startswith("serial"),
        tell=say,
        overwrite=fresh,
        earlier=earlier,
        head_only_accuracy=head_only_accuracy(written, digest),
        keep=lambda so_far: artefact.write_json(written, so_far),
    )
    with artefact.lock(out, busy(out)), Bar() as bar:

        def tell(tick: Tick) -> None:
            note = f"accuracy {tick.accuracy:.3f}" + (f"  loss {tick.loss:.3f}" if tick.loss else "")
            bar.show(tick.phase, tick.done, tick.total, note)

        try:
            result = run_target(compiled, dataset, options, tell)
        except KeyboardInterrupt as stop:
            say(str(stop) or "stopped before the training began")
            raise typer.Exit(INTERRUPTED) from None
    result["warnings"] = [*({"key": "data", "text": text} for text in warnings), *result["warnings"]]
    artefact.write_json(written, result)

    show(result, json_, lambda: _print(result))
    if result["rejected"]:
        raise typer.Exit(1)


def busy(out: Path) -> ArtefactError:
    """Raised where two runs want one folder."""
    return ArtefactError(f"another run uses '{out}'.", "Wait for it, or compile into another folder.")


def _print(result: dict[str, Any]) -> None:
    """What a person reads of a run that ended."""
    what = "loss" if result["accuracy_before"] is None else "accuracy"
    console.print(
        f"{what} {result[f'{what}_before']:.4f} -> {result[f'{what}_after']:.4f} in {result['epochs']} epochs; "
        f"digest {result['digest']}"
    )
    if result["kept_epoch"] is not None:
        console.print(f"epoch {result['kept_epoch']} is kept, the best on the training samples held out")
    if result["accuracy_head_only"] is not None and not result["head_only"]:
        steps = result["head_only_steps"]
        how = "in a run of its own" if steps is None else f"after {steps:,} steps"
        console.print(f"the head alone: accuracy {result['accuracy_head_only']:.4f} {how}")
    elif not result["head_only"] and result["loss_head_only"] is not None:
        console.print(f"the head alone: loss {result['loss_head_only']:.4f} after {result['head_only_steps']:,} steps")
    elif not result["head_only"]:
        console.print("the head alone was not measured; `run --head-only` measures it")
    if result.get("arena_measured_bytes"):
        spare = result["workspace_bytes"]
        more = f" and {spare:,} for kernels to work in" if spare else ""
        console.print(
            f"arena measured {result['arena_measured_bytes']:,} B, planned {result['arena_planned_bytes']:,} B{more}; "
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
    if result["ms_per_step"]:
        console.print(f"{result['ms_per_step']:,} ms per training step, at most {result['ms_per_step_max']:,} ms")
    for sign in result["warnings"]:
        if sign["key"] == "data":
            continue  # said before the training
        console.print(f"warning: {sign['text']}", markup=False)
