# SPDX-License-Identifier: Apache-2.0
"""Compiles networks into little memory, trains a few steps on the emulated Cortex-M7, and prints what it took.

    python tools/memory_study.py SHARED [--only NAME ...] [-o FOLDER]

SHARED is the folder with models/ and data/. Candidate layers come by the rule from a ranking made on another task
(clothing10); training is on flowers17, one sample per update. The second table is of inference arenas.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from medyate import frontends
from medyate.passes.pipeline import simplify
from medyate.plan.budget import Limits
from medyate.plan.plan import inference_plan
from transfer_study import medyate

RANKED, TRAINED = "clothing10", "flowers17"
STEPS = 8


@dataclass(frozen=True)
class Point:
    """A network, its memory, and the least that it must train."""

    model: str
    ram: str
    recompute: str
    elements: int


POINTS = (
    Point("mbv2-w0.35.pkl", "116KiB", "none", 27946),
    Point("mbv2-w0.35.pkl", "90KiB", "auto", 27946),
    Point("mcunet-5fps.pkl", "82KiB", "none", 15936),
    Point("mcunet-5fps.pkl", "70KiB", "auto", 15936),
)
ARENAS = {
    "ic_resnet8_cifar10_int8.tflite": 27_648,
    "vww_mobilenetv1_025_96_int8.tflite": 34_816,
    "kws_dscnn_int8.tflite": 10_752,
    "ad_autoencoder_int8.tflite": 1_024,
}
"""Inference arenas that were asked for, input included."""
TRAINING = ("ram", "recompute", "sample", "budget", "RAM used", "planned", "stack", "instructions/step", "digest")


def arena(model: Path) -> int:
    """Bytes of the arena of a network as it came."""
    imported = simplify(frontends.load(model))
    assert imported.qgraph is not None
    return inference_plan(imported.qgraph, imported.weights, Limits(1 << 30)).arena_bytes


def measured(shared: Path, point: Point, out: Path) -> tuple[str, ...]:
    """One row: compiled, and run on the emulated board."""
    model, data = str(shared / "models" / point.model), str(shared / "data" / TRAINED)
    ranking = out / f"{point.model}.json"
    if not ranking.exists():
        medyate("rank", model, "--data", str(shared / "data" / RANKED), "-o", str(ranking))
    folder = str(out / f"{point.model}-{point.ram}")
    saving = ("--ram", point.ram, "--recompute", point.recompute, "--min-elements", str(point.elements))
    target = ("--target", "qemu-m7", "--builder", "make")
    plan = medyate("compile", model, "--data", data, *target, *saving, "--ranking", str(ranking), "-o", folder)
    run = ("--on", "qemu", "--epochs", "1", "--limit", str(STEPS))
    log = medyate("run", folder, "--data", data, *run)
    return (
        f"{log['ram_limit_bytes']:,}",
        point.recompute,
        plan["sample"],
        f"{log['b_mem_elements']:,} elements",
        f"{log['ram_used_bytes']:,}",
        f"{log['planned_mark_bytes']:,}",
        str(log["stack_bytes"]),
        f"{log['instructions_per_step']:,}",
        log["digest"],
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()

    def wanted(model: str) -> bool:
        return not options.only or any(name in model for name in options.only)

    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        print(f"| model | {' | '.join(TRAINING)} |\n|{' --- |' * (len(TRAINING) + 1)}")
        for point in POINTS:
            if wanted(point.model):
                print(f"| {point.model} | {' | '.join(measured(options.shared, point, out))} |", flush=True)
    print("\n| model | inference arena | asked for |\n| --- | --: | --: |")
    for model, limit in ARENAS.items():
        if wanted(model):
            found = arena(options.shared / "models" / model)
            print(f"| {model} | {found:,} | {limit:,} |")
            if found > limit:
                sys.exit(1)


if __name__ == "__main__":
    main()
