# SPDX-License-Identifier: Apache-2.0
"""Trains digitnet's host twin over a terminal line that damages or delays bytes, and prints what that costs.

    python tools/link_study.py [OUT] [--samples 60] [--seeds 3]

OUT is a folder made by `medyate compile --target host`; without one digitnet is compiled for it. The work is BEGIN, so
many training steps, COMMIT, as many inferences, and the digests. Ends with 1 when a line misses its bound, or a
digest differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from line import Line
from medyate import datasets
from medyate.errors import LinkError
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import Options, compile_model

DIGITNET = Path(__file__).resolve().parent.parent / "models" / "digitnet" / "digitnet.onnx"
GIVEN_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Kind:
    """A line, and what it may cost."""

    name: str
    bad: float
    delay: float
    most: float
    """Times of the clean line's; infinite: none is promised."""
    may_fail: bool = False


KINDS = (
    Kind("clean", 0.0, 0.0, 1.0),
    Kind("0.01 % of bytes bad", 0.0001, 0.0, 3.0),
    Kind("0.1 %", 0.001, 0.0, 3.0),
    Kind("1 %", 0.01, 0.0, 20.0),
    Kind("5 %", 0.05, 0.0, float("inf"), may_fail=True),
    Kind("50 ms late each way", 0.0, 0.05, float("inf")),
)


@dataclass(frozen=True)
class Outcome:
    """What one training over a line took; the digest, or why there is none."""

    seconds: float
    digest: str
    error: str
    damaged: int


def work(compiled: Compiled, kind: Kind, seed: int, count: int, samples: tuple) -> Outcome:  # type: ignore[type-arg]
    """One training over one line."""
    x, y = samples
    digest = error = ""
    with tempfile.TemporaryDirectory() as folder:
        flash = Path(folder) / "flash.bin"
        with Line(compiled.image, flash, kind.bad, kind.delay, seed) as line:
            start = time.monotonic()
            try:
                with connect(compiled, line.port, flash) as session:
                    session.begin(Training(0.02, 1, count, "constant", seed=4))
                    for i in range(count):
                        session.train(x[i], int(y[i]))
                    session.commit()
                    for i in range(count):
                        session.infer(x[i], int(y[i]))
                    digest = str(session.digests())
                    seconds = time.monotonic() - start
            except LinkError as failed:
                error, seconds = failed.what, time.monotonic() - start
            return Outcome(seconds, digest, error, line.damaged)


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    dataset = datasets.load("digits")
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder)
        if given.out is None:
            compile_model(DIGITNET, dataset, Options("host", Limits(64 << 10), rank_epochs=1), out)
        return table(Compiled.read(out), given.samples, given.seeds, dataset)


def table(compiled: Compiled, count: int, seeds: int, dataset: datasets.Dataset) -> int:
    """Prints a row for each line, of the slowest seed; 1 when one misses its bound."""
    x, _ = int8_samples(compiled, dataset)
    missed = 0
    clean, right = 0.0, ""
    print("| line | seconds (slowest) | times the clean line's | bytes damaged | digest |")
    print("| --- | --: | --: | --: | --- |")
    for kind in KINDS:
        outcomes = [work(compiled, kind, seed, count, (x, dataset.y_train)) for seed in range(seeds)]
        slowest = max(outcome.seconds for outcome in outcomes)
        if kind is KINDS[0]:
            clean, right = sorted(outcome.seconds for outcome in outcomes)[seeds // 2], outcomes[0].digest
        failed = [outcome.error for outcome in outcomes if outcome.error]
        equal = right != "" and all(outcome.digest == right for outcome in outcomes if not outcome.error)
        slow = slowest > kind.most * clean * (2.0 if kind is KINDS[0] else 1.0)
        missed += not equal or slow or (bool(failed) and (not kind.may_fail or slowest > GIVEN_UP_SECONDS))
        said = "equal" if equal else "DIFFERENT"
        said += f"; {len(failed)} of {seeds} given up: {failed[0]}" if failed else ""
        damaged = sum(outcome.damaged for outcome in outcomes) // seeds
        print(f"| {kind.name} | {slowest:.2f} | {slowest / clean:.1f} | {damaged:,} | {said} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
