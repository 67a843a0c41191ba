# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: digitnet fine-tunes itself on an emulated Cortex-M7.

The network was pretrained on digits as scanned; in the field the camera is mounted upside down, the
contrast is inverted, a lamp lights from one side and the optics are dirty (models/digitnet/task.py).
It is compiled for a Cortex-M7 with a fixed RAM limit and trained there twice from the same image: the
classifier alone, and the selected channels with it. Every accuracy is the device's own inference over
the whole held-out split; the floating-point reference trains all weights in PyTorch on the same data.
Writes build/demo/report.json and report.png.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medyate import artefact, datasets
from medyate.errors import MedyateError
from medyate.plan.budget import Limits
from medyate.report.picture import draw
from medyate.run.feed import Tick
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.stages import Options, compile_model
from medyate.terminal import console, errors

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "demo"
DIGITNET = ROOT / "models" / "digitnet"
TARGET = "qemu-m7"
RAM = 24 * 1024
EPOCHS = 8
RATE, HEAD_RATE = 0.02, 0.1
"""The peak rates that models/digitnet/train.py --search finds for either training, without a clip."""


FIELDS = (
    "ram_limit_bytes",
    "ram_used_bytes",
    "arena_planned_bytes",
    "workspace_bytes",
    "arena_measured_bytes",
    "stack_bytes",
    "static_bytes",
    "link_bytes",
    "b_mem_bytes",
    "b_mem_elements",
    "candidate_layers",
    "total_layers",
    "epochs",
    "epoch_samples",
    "instructions_per_step",
    "instructions_per_step_max",
    "target",
    "digest",
)
"""What the report takes from the full run's log."""


def digitnet(name: str) -> ModuleType:
    """A module of models/digitnet, which is no package."""
    sys.path.insert(0, str(DIGITNET))
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def float_reference() -> float:
    """Accuracy of a full fine-tuning in PyTorch, one sample per update, on the same data."""
    import torch

    torch.set_num_threads(1)
    train, task = digitnet("train"), digitnet("task")
    split = task.load_adaptation()
    model = train.adapt("full", split.x_train, split.y_train, 0, train.RATES["full"])
    return float(train.accuracy(model, train.to_input(split.x_test), torch.from_numpy(split.y_test)))


def train_both(compiled: Compiled, dataset: datasets.Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """(selected channels and head, head only): the same image, two emulators at once."""
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    samples = len(dataset.x_train)
    with (
        Progress(*columns, console=errors, disable=not sys.stderr.isatty()) as bars,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):

        def train(name: str, head_only: bool) -> dict[str, Any]:
            bar = bars.add_task(name, total=EPOCHS * samples, note="")

            def show(tick: Tick) -> None:
                done = tick.done + samples * (tick.epoch - 1) if tick.epoch else None
                note = f"{tick.phase}: accuracy {tick.accuracy:.3f}" + (f", loss {tick.loss:.3f}" if tick.loss else "")
                bars.update(bar, completed=done, note=note)

            training = Training(HEAD_RATE if head_only else RATE, EPOCHS, samples, head_only=head_only, clip=0.0)
            flash = OUT / f"{'head' if head_only else 'full'}.flash"
            return run(
                compiled, dataset, RunOptions("qemu", training, flash, measure=not head_only, overwrite=True), show
            )

        head = pool.submit(train, "head only", True)
        full = pool.submit(train, "selected channels and head", False)
        return full.result(), head.result()


def summary(full: dict[str, Any], head: dict[str, Any], reference: float) -> dict[str, Any]:
    """The report's fields."""
    return {
        "accuracy_before": full["accuracy_before"],
        "accuracy_head_only": head["accuracy_after"],
        "accuracy_after": full["accuracy_after"],
        "float_full_finetune_accuracy": reference,
        **{key: full[key] for key in FIELDS},
    }


def main() -> int:
    """Runs everything; returns the exit code."""
    started = time.monotonic()
    split = digitnet("task").load_adaptation()
    names = tuple(map(str, range(10)))
    dataset = datasets.Dataset(
        "digits, field condition", names, split.x_train, split.y_train, split.x_test, split.y_test
    )
    console.print(f"compiling digitnet for {TARGET}, {RAM // 1024} KiB of RAM ...")
    options = Options(TARGET, Limits(RAM), head="keep")
    plan, image = compile_model(DIGITNET / "digitnet.onnx", dataset, options, OUT / "model")
    console.print(
        f"  {len(plan.candidates)} candidate layers, {plan.row.b_mem_bytes:,} B for training, "
        f"arena {plan.arena_bytes:,} B, flash {image.flash_bytes:,} B"
    )
    console.print("training twice on the emulated board: the classifier alone, and selected channels with it ...")
    compiled = Compiled.read(OUT / "model")
    full, head = train_both(compiled, dataset)
    console.print("training the floating-point reference ...")
    reference = float_reference()
    report = {**summary(full, head, reference), "test_samples": len(dataset.y_test)}
    report["seconds"] = round(time.monotonic() - started, 1)
    artefact.write_json(OUT / "report.json", report)
    artefact.write_json(OUT / "runs.json", {"full": full, "head": head})
    draw(
        compiled.plan,
        artefact.read_json(OUT / "model" / "04_ranking.json"),
        [("selected channels and head", full), ("head only", head)],
        ("float, all weights", reference),
        OUT / "report.png",
    )
    console.print(json.dumps(report, indent=1))
    console.print(f"report: {(OUT / 'report.json').relative_to(ROOT)}, {(OUT / 'report.png').relative_to(ROOT)}")
    return 0 if kept(report) else 1


def kept(report: dict[str, Any]) -> bool:
    """Whether the demonstration shows what it claims."""
    return bool(
        report["accuracy_after"] >= max(0.93, report["accuracy_head_only"] + 0.03)
        and 0 <= report["arena_measured_bytes"] - report["arena_planned_bytes"] <= report["workspace_bytes"]
        and report["ram_used_bytes"] <= report["ram_limit_bytes"]
        and np.isfinite(report["float_full_finetune_accuracy"])
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MedyateError as error:
        print(f"medyate: {error.what}\n  {error.remedy}", file=sys.stderr)
        sys.exit(2)
