# SPDX-License-Identifier: Apache-2.0
"""The log of a run: what it says, how it grows from epoch to epoch, and how it is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.errors import ArtefactError
from medyate.run.session import Training

MODEL = "model_digest"
HEAD_ONLY = ("accuracy_head_only", "loss_head_only", "head_only_steps")
"""What the head alone reached, and in how many steps where it was trained for that; in older logs may be missing."""


@dataclass(frozen=True)
class Score:
    """What an evaluation gave: share of right predictions, or None where vectors are to be hit; mean loss."""

    accuracy: float | None
    loss: float
    predictions: tuple[int, ...] = ()
    """Of each sample, where classes are predicted."""


NOT_EVALUATED = {"accuracy": None, "loss": None}


@dataclass
class RunLog:
    """Of a run that goes on; `keep` takes it to a safe place after each epoch."""

    facts: Mapping[str, Any]
    """What was chosen and planned."""
    training: Training
    keep: Callable[[Mapping[str, Any]], None]
    before: Score
    """Of the weights that the first epoch of the history started from."""
    after: Score | None
    """Of the weights now; None where they were not evaluated."""
    history: list[dict[str, Any]]
    committed: int
    """Epochs that the flash holds."""
    kept_epoch: int | None = None
    """The best epoch, from 1, of a training with an early stop that has come to its end; the flash may hold another."""
    rejected: dict[str, Any] | None = None
    """The epoch that the guard did not accept."""
    guard_start: float | None = None
    """The guard's score before the first epoch of the history."""
    instructions: list[int] = field(default_factory=list)
    """Of each step."""
    milliseconds: list[float] = field(default_factory=list)
    """Of each step."""

    @property
    def efforts(self) -> tuple[list[int], list[float]]:
        """Instructions and milliseconds of each step, for whoever adds to them."""
        return self.instructions, self.milliseconds

    @staticmethod
    def begin(
        facts: Mapping[str, Any],
        training: Training,
        keep: Callable[[Mapping[str, Any]], None],
        now: Score,
        earlier: Mapping[str, Any] | None,
        committed: int,
    ) -> RunLog:
        """`now`: of the weights before this run. `earlier`: the log of the run that this one continues."""
        kept = (earlier or {}).get("kept_epoch") if committed else None
        history = [
            entry for entry in (earlier or {}).get("history", ()) if entry["epoch"] <= committed or kept is not None
        ]
        first = bool(history) and history[0]["epoch"] == 1
        before = Score(earlier["accuracy_before"], earlier["loss_before"]) if earlier and first else now
        log = RunLog(facts, training, keep, before, now, history, committed, kept)
        log.rejected = earlier.get("rejected") if earlier and kept is not None else None
        log.guard_start = earlier.get("guard_start") if earlier and first else None
        log.keep(log.content())  # from now on the file is this run's
        return log

    def trained(self, entry: dict[str, Any]) -> None:
        """An epoch is over and about to be committed: a kill from here on loses nothing of its history."""
        self.history = [past for past in self.history if past["epoch"] < entry["epoch"]]  # it may have been begun anew
        self.history.append(entry)
        self.after = None
        self.keep(self.content())

    def evaluated(self, score: Score | None) -> None:
        """The epoch is in flash; it has been evaluated, or is not going to be."""
        self.committed = int(self.history[-1]["epoch"])
        if score is not None:
            self.after = score
            self.history[-1] |= {"accuracy": score.accuracy, "test_loss": score.loss}
        self.keep(self.content())

    def ended(self, kept: int) -> None:
        """The training is over, and the epoch is known that the flash has to hold at the end."""
        self.kept_epoch = kept
        self.keep(self.content())

    def repeated(self, epoch: int) -> None:
        """An epoch of the history was trained again and is in flash."""
        self.committed = epoch
        self.keep(self.content())

    def content(self, **more: Any) -> dict[str, Any]:
        """The JSON object; `more`: what only a run that ended knows."""
        after = NOT_EVALUATED if self.after is None else vars(self.after)
        return {
            **self.facts,
            "accuracy_before": self.before.accuracy,
            "accuracy_after": after["accuracy"],
            "loss_before": self.before.loss,
            "loss_after": after["loss"],
            "guard_start": self.guard_start,
            "kept_epoch": self.kept_epoch,
            "rejected": self.rejected,
            "epochs": len(self.history),
            "history": [dict(entry) for entry in self.history],
            "committed_epochs": self.committed,
            "finished": bool(more),
            **more,
        }

    def stopped(self) -> str:
        """Where a run stood when it was interrupted, and how to go on."""
        total = self.training.epochs
        if self.facts["weights"] == "ram":
            return f"stopped in epoch {len(self.history) + 1} of {total}; what was learned in RAM is lost"
        if self.committed == 0:
            return "stopped before the end of the first epoch: the flash holds nothing yet"
        flip = " --flip" if self.training.flip else ""
        more = f" --shift {self.training.shift}" if self.training.shift else ""
        more += f" --smoothing {self.training.smoothing:.6g}" if self.training.smoothing else ""
        early = self.facts.get("early_stop")
        more += "" if early is None else f" --early-stop {early}"
        numbers = f"--rate {self.training.rate:.6g} --clip {self.training.clip:.6g}{flip}{more}"
        return (
            f"stopped after epoch {self.committed} of {total}, which is in flash; "
            f"to go on, give --resume with the same options ({numbers})"
        )


def read_log(path: Path, digest: int) -> dict[str, Any]:
    """The log of a run of the model of this digest. Raises ArtefactError when it is missing, damaged or another's."""
    log = artefact.read_json(path)
    if not is_log(log) or not _is_whole(log):
        raise ArtefactError(f"'{path}' is no run log of this version.", "Train again with `medyate run`.")
    if log[MODEL] != digest:
        raise ArtefactError(
            f"'{path}' is the log of another model (digest 0x{int(log[MODEL]):08x}); the folder holds 0x{digest:08x}.",
            "Compile the model that was trained, or train this one afresh: `medyate run --fresh`.",
        )
    return log


def head_only_accuracy(path: Path, digest: int) -> float | None:
    """What the last run of the head alone gave on this model, as the log that is about to be replaced knows it."""
    try:
        log = read_log(path, digest)
    except ArtefactError:
        return None
    handed_on = None if log.get("head_only_steps") else log.get("accuracy_head_only")  # of trials: not a whole run
    known = log["accuracy_after"] if log["head_only"] and log["finished"] else handed_on
    return float(known) if isinstance(known, int | float) else None


def training_of(log: Mapping[str, Any]) -> Training:
    """What a logged run was asked for."""
    epochs, samples = log["planned_epochs"], log["epoch_samples"]
    more = {key: log[key] for key in ("schedule", "seed", "head_only", "flip", "clip")}
    more |= {key: log.get(key, 0) for key in ("shift", "smoothing")}  # older logs have none
    return Training(log["rate"], epochs, samples, **more)


def is_log(content: Mapping[str, Any]) -> bool:
    """Whether an object is a run log, of this version or an older one."""
    history = content.get("history")
    return isinstance(history, list) and {"network", "accuracy_before", "loss_before", "head_only"} <= content.keys()


def _is_whole(log: Mapping[str, Any]) -> bool:
    """Whether a log has what this version reads, of the right kinds."""
    scores = [log.get(f"{what}_{when}") for what in ("accuracy", "loss") for when in ("before", "after")]
    scores += [log.get(key) for key in HEAD_ONLY]
    numbers = [log.get(key) for key in ("rate", "clip")] + [log.get("smoothing", 0.0)]
    whole = [log.get(key) for key in (MODEL, "seed", "planned_epochs", "epoch_samples")] + [log.get("shift", 0)]
    flags = [log.get(key) for key in ("head_only", "flip", "finished")]
    return (
        all(score is None or isinstance(score, int | float) for score in scores)
        and all(isinstance(number, int | float) and 1e-9 < number + 1 < 2048 for number in numbers)
        and all(isinstance(number, int) and 0 <= number < 2**32 for number in whole)
        and all(isinstance(flag, bool) for flag in flags)
        and log.get("schedule") in ("cosine", "constant")
        and all(isinstance(entry, dict) and _is_entry(entry) for entry in log["history"])
        and _is_early_stop(log)
    )


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether an epoch's entry has what this version reads."""
    selected = entry.get("selected")
    return (
        isinstance(entry.get("epoch"), int)
        and isinstance(entry.get("loss"), int | float)
        and isinstance(entry.get("accuracy", 0.0), int | float | None)
        and isinstance(selected, list)
        and all(isinstance(channel, int) for channel in selected)
    )


def _is_early_stop(log: Mapping[str, Any]) -> bool:
    """Whether what a log says of an early stop, if anything, fits its history."""
    patience, kept, rejected = (log.get(key) for key in ("early_stop", "kept_epoch", "rejected"))
    numbers = [entry["epoch"] for entry in log["history"]]
    losses = [entry.get("held_loss") for entry in log["history"]]
    return (
        (patience is None or (isinstance(patience, int) and patience > 0))
        and (patience is None or all(isinstance(loss, int | float) for loss in losses))
        and (kept is None or (kept in numbers and numbers == list(range(1, len(numbers) + 1))))
        and (rejected is None or (isinstance(rejected, dict) and {"epoch", "text"} <= rejected.keys()))
        and all(isinstance(entry.get("held_accuracy"), int | float | None) for entry in log["history"])
    )


def check_place(path: Path) -> None:
    """Raises ArtefactError where a log would replace a file that is none, or could not be written."""
    if path.exists():
        try:
            own = is_log(artefact.read_json(path))
        except ArtefactError:
            own = False
        if not own:
            raise ArtefactError(f"'{path}' is no run log.", "Move it away, or give another --log.")
    artefact.check_writable(path)
