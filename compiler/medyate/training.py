# SPDX-License-Identifier: Apache-2.0
"""What `medyate run` does: a training of a compiled network with what the user chose, and the log that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.datasets import Dataset
from medyate.errors import ArtefactError, DataError
from medyate.options import check_seed, choice, link_key
from medyate.recipe import CLIP, RATE, check_augmentation, check_clip
from medyate.run.feed import Progress
from medyate.run.log import check_place, head_only_accuracy, read_log
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, epoch_samples, run
from medyate.run.transport import BAUD

AUTO = "auto"
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Of a training; each as the command line's option of that name."""

    on: str = "host"
    epochs: int = 10
    rate: str = AUTO
    clip: float | None = None
    schedule: str = SCHEDULES[0]
    limit: int | None = None
    head_only: bool = False
    flip: bool | None = None
    shift: int = 0
    smoothing: float = 0.0
    resume: bool | None = None
    fresh: bool = False
    guard: bool = True
    early_stop: int | None = None
    no_measure: bool = False
    evaluate_at_end: bool = False
    flash: Path | None = None
    baud: int = BAUD
    link_key: str | None = None
    seed: int = 0
    log: Path | None = None

    @property
    def peak(self) -> float:
        """The rate, or that with which trials begin. Raises DataError."""
        try:
            return RATE if self.rate == AUTO else float(self.rate)
        except ValueError as error:
            raise DataError(f"--rate '{self.rate}' is no number.", "Give one, or auto.") from error

    def check(self) -> None:
        """Raises DataError for what no training can be."""
        choice(self.schedule, SCHEDULES, "--schedule")
        if self.resume and self.fresh:
            raise DataError("--resume and --fresh contradict each other.", "Give one of them.")
        if self.epochs < 1 or not 1e-9 < self.peak < 1024.0 or (self.limit is not None and self.limit < 1):
            raise DataError("epochs, rate and limit must be above zero.", "Check --epochs, --rate and --limit.")
        if self.rate == AUTO and self.clip is not None:
            raise DataError(
                "--rate auto, the default, finds the clip, too.", f"Give a rate, like {RATE:g}, or leave out --clip."
            )
        if self.early_stop is not None and self.early_stop < 1:
            raise DataError("a training cannot stop before its first epoch.", "Give --early-stop 1 or more.")
        check_clip(CLIP if self.clip is None else self.clip)
        check_augmentation(self.shift, self.smoothing)
        check_seed(self.seed)

    def store(self, out: Path) -> Path:
        """The file of the flash."""
        return self.flash or out / "flash.bin"

    def written(self, out: Path) -> Path:
        """The file of the log."""
        return self.log or out / "run.json"


def fit(
    compiled: Compiled, dataset: Dataset, chosen: FitOptions, progress: Progress, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Trains, evaluates, measures memory; returns the log, which lies beside the flash as far as it went.

    `tell` is told sentences without their full stop. Raises DataError, ArtefactError where files are in the way, and
    KeyboardInterrupt with how to go on.
    """
    out = compiled.folder
    options = _options(compiled, dataset, chosen, tell)
    warnings = dataset.warnings()
    for text in warnings:
        tell(f"warning: {text}")
    with artefact.lock(out, busy(out)):
        result = run(compiled, dataset, options, progress)
    result["warnings"] = [*({"key": "data", "text": text} for text in warnings), *result["warnings"]]
    artefact.write_json(chosen.written(out), result)
    return result


def busy(out: Path) -> ArtefactError:
    """What a second program is told that would use a folder."""
    return ArtefactError(f"another run uses '{out}'.", "Wait for it, or compile into another folder.")


def _options(compiled: Compiled, dataset: Dataset, chosen: FitOptions, tell: Callable[[str], None]) -> RunOptions:
    """For the run. Raises DataError, and ArtefactError for files that cannot be written: before hours of training."""
    chosen.check()
    store, written = chosen.store(compiled.folder), chosen.written(compiled.folder)
    check_place(written)
    artefact.check_writable(store)
    digest = int(compiled.model["digest"])
    earlier = read_log(written, digest) if chosen.resume and written.exists() else None
    count = epoch_samples(dataset, chosen.limit, chosen.early_stop)
    if chosen.epochs * count >= 2**32:
        raise DataError(f"{chosen.epochs:,} epochs of {count:,} samples are too many steps.", "Check --epochs.")
    training = Training(
        chosen.peak,
        chosen.epochs,
        count,
        chosen.schedule,
        1.0,
        chosen.seed,
        chosen.head_only,
        chosen.flip is True,
        chosen.shift,
        chosen.smoothing,
        not chosen.resume,
        check_clip(CLIP if chosen.clip is None else chosen.clip),
    )
    return RunOptions(
        chosen.on,
        training,
        store,
        chosen.limit,
        evaluate_each=not chosen.evaluate_at_end,
        find_rate=chosen.rate == AUTO,
        find_flip=chosen.rate == AUTO and chosen.flip is None,
        guard=chosen.guard,
        early_stop=chosen.early_stop,
        go_on=chosen.resume is not False,
        baud=chosen.baud,
        key=link_key(chosen.link_key),
        measure=not chosen.no_measure and not chosen.on.startswith("serial"),
        tell=tell,
        overwrite=chosen.fresh,
        earlier=earlier,
        head_only_accuracy=head_only_accuracy(written, digest),
        keep=lambda so_far: artefact.write_json(written, so_far),
    )
