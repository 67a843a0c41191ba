# SPDX-License-Identifier: Apache-2.0
"""Whether an epoch may become a generation: judged on the target before anything is committed.

Until its commit an epoch lives in RAM, and the target's inference computes with exactly the weights that a commit
would keep. So an epoch that made the network worse is dropped by not committing it: the accepted bank stays as it is.
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
    accepted: Outcome

    @staticmethod
    def begin(look: Callable[[], Outcome]) -> Guard:
        """The state before training is accepted."""
        return Guard(look, look())

    def reject(self, epoch: int) -> Rejected | None:
        """The reason why an epoch must not be committed; None: it is accepted."""
        found = self.look()
        text = fall(self.accepted, found)
        if text:
            return Rejected(epoch, text)
        if _score(found) >= _score(self.accepted):
            self.accepted = found
        return None


def _score(outcome: Outcome) -> float:
    return -outcome.loss if outcome.accuracy is None else outcome.accuracy


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
