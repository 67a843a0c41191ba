# SPDX-License-Identifier: Apache-2.0
"""Several seeds of one transfer on the host twin, in one or several sizes of RAM; prints the table.

    python tools/transfer_study.py MODEL --data D --ram 64KiB 128KiB 320KiB -o build/flowers17
    python tools/transfer_study.py MODEL --data D --ram 320KiB --rate 0.0015 -o build/flowers17

Without a rate, `run` finds rate, clip and flips, and trains the head alone for a part of the steps beside it. With
one, there is no clip, images are flipped, and the head alone is trained as long. The model is compiled once for each
size; runs go on two at a time, each in its own copy.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

KEEP = (
    "rate",
    "clip",
    "flip",
    "accuracy_before",
    "accuracy_head_only",
    "accuracy_after",
    "ram_limit_bytes",
    "arena_planned_bytes",
    "b_mem_bytes",
    "b_mem_elements",
    "candidate_layers",
    "total_layers",
    "epochs",
    "digest",
)


def medyate(*arguments: str) -> dict[str, Any]:
    """One command of medyate with --json; its failure ends the study."""
    command = [sys.executable, "-m", "medyate.cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compiled(options: argparse.Namespace) -> list[Path]:
    """A folder for each size of RAM; the first one's ranking serves all."""
    folders: list[Path] = []
    for ram in options.ram:
        given = ["--data", options.data, "--target", "host", "--ram", ram, "--schedule", options.schedule]
        given += ["--min-elements", options.min_elements]
        given += ["--ranking", str(folders[0] / "04_ranking.json")] if folders else []
        folders.append(options.out / ram)
        medyate("compile", str(options.model), *given, "-o", str(folders[-1]))
    return folders


def one_run(options: argparse.Namespace, folder: Path, seed: int, head_only: bool) -> dict[str, Any]:
    """Trains one seed in a copy of the folder; returns the figures that are kept."""
    own = folder.with_name(f"{folder.name}-{'head' if head_only else 'full'}-{seed}")
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(folder, own)
    given = ["--data", options.data, "--on", "host", "--epochs", str(options.epochs), "--seed", str(seed)]
    given += ["--no-measure", "--evaluate-at-end", "--shift", str(options.shift), "--smoothing", str(options.smoothing)]
    if options.rate is not None:
        given += ["--rate", str(options.rate), "--clip", "0", "--flip"]
    result = medyate("run", str(own), *given, *(["--head-only"] if head_only else []))
    print(f"{own.name}: {result['accuracy_after']:.4f}", file=sys.stderr, flush=True)
    return {"ram": folder.name, "seed": seed, "head_only": head_only, **{key: result[key] for key in KEEP}}


def table(results: list[dict[str, Any]]) -> str:
    """Means and seeds of every size, and of the head alone."""
    lines = [
        "| RAM | trained | elements at a time | rate, clip, flips | mean | seeds |",
        "| --- | --- | --: | --- | --: | --- |",
    ]
    for ram in dict.fromkeys(result["ram"] for result in results):
        for head_only, name in ((False, "selected channels and head"), (True, "head only")):
            runs = [result for result in results if result["ram"] == ram and result["head_only"] == head_only]
            if not runs:
                continue
            recipes = {f"{r['rate']:.3g}, {r['clip']:.3g}, {'yes' if r['flip'] else 'no'}" for r in runs}
            elements = "" if head_only else f"{runs[0]['b_mem_elements']:,}"
            shown = f"| {ram} | {name} | {elements} | {'; '.join(sorted(recipes))} "
            lines.append(shown + _accuracies([run["accuracy_after"] for run in runs]))
            beside = [run["accuracy_head_only"] for run in runs if run["accuracy_head_only"] is not None]
            if beside:
                lines.append(f"| {ram} | head alone, in a part of the steps | | " + _accuracies(beside))
    return "\n".join(lines)


def _accuracies(values: list[float]) -> str:
    return f"| {statistics.mean(values):.4f} | {' '.join(f'{value:.4f}' for value in values)} |"


def main() -> None:
    """Runs the study and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ram", nargs="+", default=["320KiB"])
    parser.add_argument("--min-elements", default="0")
    parser.add_argument("--schedule", default="auto")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--shift", type=int, default=0)
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = (False,) if options.rate is None else (False, True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(one_run, options, folder, seed, head_only)
            for folder in compiled(options)
            for seed in range(options.seeds)
            for head_only in ways
        ]
        results = [job.result() for job in jobs]
    print(table(results))
    if options.json:
        settings = {key: vars(options)[key] for key in ("min_elements", "epochs", "rate")}
        content = {"model": options.model.name, "data": Path(options.data).name, **settings, "runs": results}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
