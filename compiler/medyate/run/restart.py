# SPDX-License-Identifier: Apache-2.0
"""A target that restarts in the middle of a training: from which commit it goes on, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from medyate.errors import LinkError
from medyate.run.link import RestartedError
from medyate.run.session import Position, Session, Training

TIMES = 3
"""In a row without a commit in between."""
Done = TypeVar("Done")


def repeat(session: Session, go_on: bool, work: Callable[[], Done]) -> Done:
    """What `work` gives, which begins a training of its own; it is begun anew after a restart, if the run goes on then.

    Raises LinkError when that does not help.
    """
    for _ in range(TIMES):
        try:
            return work()
        except RestartedError:
            if not go_on:
                raise
            session.greet()
    raise LinkError(f"the target restarted {TIMES} times within a short training.", "Look at its power.")


@dataclass
class Restarts:
    """Does the parts of a training again that a restart has undone."""

    session: Session
    training: Training
    go_on: bool
    """Otherwise the first restart ends the run."""
    tell: Callable[[str], None]
    count: int = field(default=0, init=False)
    _at: int = field(default=-1, init=False)
    _times: int = field(default=0, init=False)

    def survive(self, work: Callable[[], Done], committed: Callable[[], Done] | None = None) -> Done:
        """What `work` gives; it is begun anew after a restart. Raises LinkError when that does not help.

        `committed`: gives it where the work's commit was made, and only its answer was lost.
        """
        while True:
            before = self.session.position
            try:
                return work()
            except RestartedError:
                if not self.go_on:
                    raise
                self._count(before)
                position = self._begin(before)
                epochs = f"{position.epochs} epoch" + "s" * (position.epochs != 1)
                self.tell(f"the target restarted; the training goes on from its last commit, after {epochs}")
                if committed is not None and position.epochs == before.epochs + 1:
                    return committed()

    def again(self) -> bool:
        """Whether the target restarted since this was asked last."""
        happened, self.count = self.count > 0, 0
        return happened

    def _count(self, before: Position) -> None:
        self.count += 1
        self._times = self._times + 1 if self._at == before.epochs else 1
        self._at = before.epochs
        if self._times > TIMES:
            raise LinkError(
                f"the target restarted {self._times} times without a commit in between.",
                "Look at its power; `medyate run --resume` goes on from its last commit.",
            )

    def _begin(self, before: Position) -> Position:
        """Begins again where the last commit stands; without one, as the training began."""
        self.session.greet()
        first = self.training.fresh and before.epochs == 0  # what the flash holds may be an older training's
        try:
            position = self.session.begin(replace(self.training, fresh=False))
        except LinkError:
            if not first:
                raise
            return self.session.begin(self.training)
        older = {found.generation for found in before.found}
        if first and (position.epochs != 1 or position.generation in older):
            return self.session.begin(self.training)
        if position.epochs not in (before.epochs, before.epochs + 1):
            raise LinkError(
                f"the target restarted, and holds epoch {position.epochs} instead of {before.epochs}.",
                "Start afresh, or look at what else writes its flash.",
            )
        return position
