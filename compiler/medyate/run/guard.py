# SPDX-License-Identifier: Apache-2.0
"""Whether an epoch may become a generation: judged on the target before anything is committed.

Until its commit an epoch lives in RAM, and the target's inference computes with exactly the weights that a commit
would keep. So an epoch that broke the network is dropped by not committing it: the accepted bank stays as it is.

A training whose rate is at its peak swings from epoch to epoch, and comes back as the rate falls. So a fall beyond
chance is a break only where it leaves less than half of what had been gained since the start, or in the last epoch,
where it is a fall from the epoch before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medyate.chance import chance

SAMPLES = 128
DEVIATIONS = 3.0
"""Of the difference of two scores: a fall that chance explains no better is one in a thousand epochs."""


@dataclass(frozen=True)
class Outcome:
    """What a state of the network makes of the guard's samples."""

    right: NDArray[np.bool_] | None
    """None where vectors are to be hit."""
    losses: NDArray[np.float64]

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions."""
        return None if self.right is None else float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean over the samples."""
        return float(self.losses.mean())

    @property
    def score(self) -> float:
        """Accuracy, or where there is none the loss with its sign turned: more is better."""
        return -self.loss if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class Rejected:
    """An epoch that was not committed."""

    epoch: int
    """From 1."""
    text: str
    """What fell, from what to what, and what chance explains."""


@dataclass
class Guard:
    """Compares each epoch with the best accepted state."""

    look: Callable[[], Outcome]
    """Runs the guard's samples on the target as it is now."""
    start: float
    """The score before the training."""
    best: Outcome
    """Of the accepted states."""
    newest: Outcome
    """The last accepted state."""

    @staticmethod
    def begin(look: Callable[[], Outcome], start: float | None = None) -> Guard:
        """The state now is accepted; `start`: the score before a training that is resumed."""
        now = look()
        return Guard(look, now.score if start is None else start, now, now)

    def reject(self, epoch: int, *, last: bool = False) -> Rejected | None:
        """The reason why an epoch must not be committed; None: it is accepted."""
        found = self.look()
        half = (self.start + self.best.score) / 2
        text = fall(self.best, found) if found.score <= max(half, self.start) else ""
        text = text or (fall(self.newest, found) if last else "")
        if text:
            return Rejected(epoch, text)
        self.newest = found
        if found.score >= self.best.score:
            self.best = found
        return None


def fall(accepted: Outcome, found: Outcome) -> str:
    """What fell by more than chance explains; empty if nothing did."""
    count = len(found.losses)
    if accepted.accuracy is not None and found.accuracy is not None:
        noise = chance(accepted.accuracy, found.accuracy, count, DEVIATIONS)
        if accepted.accuracy - found.accuracy > max(noise, 1 / count):
            return (
                f"accuracy on the guard's {count} samples fell from {accepted.accuracy:.3f} to {found.accuracy:.3f}, "
                f"chance explains {noise:.3f}"
            )
        return ""
    spread = math.sqrt((accepted.losses.var() + found.losses.var()) / count)
    if found.loss - accepted.loss > DEVIATIONS * spread:
        return (
            f"the loss on the guard's {count} samples rose from {accepted.loss:.4g} to {found.loss:.4g}, "
            f"chance explains {DEVIATIONS * spread:.2g}"
        )
    return ""
