# SPDX-License-Identifier: Apache-2.0
"""Several seeds of one transfer on the host twin, trained in full and head only; prints the table.

    .venv/bin/python tools/transfer_study.py MODEL --data D --ram 320KiB --min-elements 27946 \
        -o build/flowers17 --json docs/flowers17.json

The model is compiled once; the runs go on two at a time, each with its own flash file.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

KEEP = (
    "accuracy_before",
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


def one_run(options: argparse.Namespace, seed: int, head_only: bool) -> dict[str, Any]:
    """Trains one seed; returns the figures that are kept."""
    name = f"{'head' if head_only else 'full'}-{seed}"
    arguments = [
        "run",
        str(options.out),
        "--data",
        options.data,
        "--on",
        "host",
        "--epochs",
        str(options.epochs),
        "--rate",
        str(options.rate),
        "--clip",
        "0",
        "--seed",
        str(seed),
        "--flip",
        "--no-measure",
        "--evaluate-at-end",
        "--fresh",
        "--flash",
        str(options.out / f"{name}.bin"),
        "--log",
        str(options.out / f"{name}.json"),
    ]
    result = medyate(*arguments, *(["--head-only"] if head_only else []))
    print(f"{name}: {result['accuracy_after']:.4f}", file=sys.stderr, flush=True)
    return {"seed": seed, "head_only": head_only, **{key: result[key] for key in KEEP}}


def table(results: list[dict[str, Any]]) -> str:
    """Mean and seeds of both trainings."""
    lines = ["| trained | mean | seeds |", "| --- | --: | --- |"]
    for head_only, name in ((False, "selected channels and head"), (True, "head only")):
        values = [r["accuracy_after"] for r in results if r["head_only"] == head_only]
        if values:
            seeds = " ".join(f"{v:.4f}" for v in values)
            lines.append(f"| {name} | {statistics.mean(values):.4f} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the study and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ram", default="320KiB")
    parser.add_argument("--min-elements", default="0")
    parser.add_argument("--schedule", default="auto")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.0015)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    medyate(
        "compile",
        str(options.model),
        "--data",
        options.data,
        "--target",
        "host",
        "--ram",
        options.ram,
        "--min-elements",
        options.min_elements,
        "--schedule",
        options.schedule,
        "-o",
        str(options.out),
    )
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(one_run, options, seed, head_only)
            for seed in range(options.seeds)
            for head_only in (False, True)
        ]
        results = [job.result() for job in jobs]
    print(table(results))
    if options.json:
        settings = {k: str(v) for k, v in vars(options).items() if k in ("ram", "min_elements", "epochs", "rate")}
        content = {"model": options.model.name, "data": Path(options.data).name, **settings, "runs": results}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
