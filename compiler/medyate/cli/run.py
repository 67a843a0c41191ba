# SPDX-License-Identifier: Apache-2.0
"""`medyate run`: trains a compiled network on its target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medyate import artefact, datasets
from medyate.cli.options import Baud, Data, Json, LinkKey, show, taking, tell
from medyate.errors import DataError
from medyate.options import link_key
from medyate.progress import Bar
from medyate.run.transport import BAUD
from medyate.terminal import console
from medyate.training import FitOptions, busy, fit

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


@taking
def run(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile`.")],
    data_: Data,
    json_: Json = False,
    *,
    chosen: FitOptions,
) -> None:
    """Trains on the target, evaluates there, measures its memory, writes the run log.

    A flash that holds a generation is neither used nor discarded unless --resume or --fresh says so.
    """
    from medyate.run.feed import Tick
    from medyate.run.train import Compiled

    chosen.check()
    compiled = Compiled.read(out)
    dataset = datasets.load(data_, float(compiled.model["split"]))
    with Bar() as bar:

        def show_tick(tick: Tick) -> None:
            note = f"accuracy {tick.accuracy:.3f}" + (f"  loss {tick.loss:.3f}" if tick.loss else "")
            bar.show(tick.phase, tick.done, tick.total, note)

        try:
            result = fit(compiled, dataset, chosen, show_tick, tell)
        except KeyboardInterrupt as stop:
            tell(str(stop) or "stopped before the training began")
            raise typer.Exit(INTERRUPTED) from None

    def human() -> None:
        _print(result)
        if chosen.log is None:
            console.print(f"look at it: medyate report {out} --html --data {data_}")

    show(result, json_, human)
    if result["rejected"]:
        raise typer.Exit(1)


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
