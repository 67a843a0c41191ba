# SPDX-License-Identifier: Apache-2.0
"""Ends a training that gets no better, judged by training samples that it never sees, and goes back to its best epoch.

When an epoch turns out to have been the best, later ones have taken its place in both banks. But what an epoch gives
follows from the settings and the samples alone. So it is trained again, from the start: no third place has to hold it,
and nothing has to be read from or written to a target that lets nobody do that. A kill on the way costs only time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.datasets import epoch_order
from medyate.errors import DataError, LinkError
from medyate.run.feed import Parts, Progress, train_epoch
from medyate.run.log import RunLog, Score
from medyate.run.restart import Restarts
from medyate.run.session import Session

SHARE, MOST, LEAST = 10, 256, 10
"""So many of the training samples are held out: one in ten, within these bounds."""
HELD_ORDER = 0xFFFFFFFE
"""Number of the epoch whose order of samples gives those held out: no training reaches it."""
SAME = ("loss", "train_accuracy", "selected")
"""What tells that an epoch was repeated."""


@dataclass(frozen=True)
class HeldOut:
    """Training samples that nothing but the early stop sees, and their labels."""

    samples: NDArray[np.int8]
    labels: NDArray[Any]


def held_samples(count: int) -> int:
    """How many of `count` training samples are held out. Raises DataError where they are too few to judge by."""
    held = min(count // SHARE, MOST)
    if held < LEAST:
        raise DataError(
            f"--early-stop holds out a tenth of the training samples: of {count} that is too few.",
            f"Give {LEAST * SHARE} or more, or leave it out.",
        )
    return held


def split(parts: Parts, seed: int) -> tuple[Parts, HeldOut]:
    """What the training sees, and what it does not."""
    count = len(parts.x_train)
    chosen = epoch_order(seed, HELD_ORDER, count)[: held_samples(count)]
    seen = np.delete(np.arange(count), chosen)
    left = replace(parts, x_train=parts.x_train[seen], y_train=parts.y_train[seen])
    return left, HeldOut(parts.x_train[chosen], parts.y_train[chosen])


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int:
    """The epoch, from 1, of the highest accuracy, and of those the one of the lowest loss; the first of equals."""
    return int(max(history, key=lambda entry: (entry["held_accuracy"] or 0.0, -entry["held_loss"]))["epoch"])


@dataclass(frozen=True)
class EarlyStop:
    """Judges each epoch of a training."""

    patience: int
    """So many epochs without an improvement end it."""
    look: Callable[[], Score]
    """Evaluates the target as it is on the samples held out."""

    def judge(self) -> dict[str, Any]:
        """For the entry of an epoch that is not committed yet: inference computes with what a commit would keep."""
        found = self.look()
        return {"held_accuracy": found.accuracy, "held_loss": found.loss}

    def drops(self, log: RunLog) -> bool:
        """Whether the last epoch of the log, which is not the best, ends the training, and is not to be committed."""
        last = int(log.history[-1]["epoch"])
        best = best_epoch(log.history)
        return best < last and (last == log.training.epochs or last - best >= self.patience)


def text(log: RunLog) -> str:
    """Why a training ended and what is kept, in one sentence."""
    kept, last = log.kept_epoch, log.history[-1]["epoch"]
    best = log.history[(kept or 1) - 1]
    score = f"loss {best['held_loss']:.3g}"
    score = score if best["held_accuracy"] is None else f"accuracy {best['held_accuracy']:.3f}, {score}"
    return f"ended after epoch {last}: epoch {kept} was the best on samples held out ({score}), and is kept"


def go_back(session: Session, parts: Parts, log: RunLog, restarts: Restarts, progress: Progress) -> None:
    """Makes the kept epoch the newest generation, whichever the target holds.

    Raises LinkError where it does not learn the same again.
    """
    epoch = log.kept_epoch or 0
    training = replace(log.training, fresh=True)
    position = session.begin(replace(training, fresh=False))
    if position.epochs > epoch:
        position = session.begin(training)
    if position.epochs < epoch:
        first = position.epochs + 1
        restarts.tell(
            f"epoch {epoch} is trained again" if first == epoch else f"epochs {first} to {epoch} are trained again"
        )
    repeats = replace(restarts, training=training)

    def again(number: int) -> None:
        entry = train_epoch(session, parts, training, number, log.efforts, progress)
        if any(entry[key] != log.history[number][key] for key in SAME):
            raise LinkError(
                f"epoch {number + 1} was not the same when it was trained again.",
                "Look at the data: was it changed? If not, look at the target's power and flash.",
            )
        session.commit()

    for number in range(position.epochs, epoch):
        repeats.survive(partial(again, number), lambda: None)
        log.repeated(number + 1)
