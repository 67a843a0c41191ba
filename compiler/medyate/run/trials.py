# SPDX-License-Identifier: Apache-2.0
"""Finds a learning rate on the target: short trainings from the same weights, none of which is committed.

Each trains the same first samples at a constant rate; what counts is the loss on samples that none of them saw. A rate
is tried with a tight and with a loose clip: what a network stands depends on its depth and on how far its task is from
what it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.data import epoch_order
from medyate.errors import DataError
from medyate.recipe import CLIP
from medyate.run.session import Session, Training

RATES = (0.003, 0.01, 0.03, 0.1)
CLIPS = (CLIP, 10 * CLIP)
TRAINED, HELD_OUT = 256, 64
"""Samples of one trial, at most; of fewer samples a fifth is held out."""


@dataclass(frozen=True)
class Trial:
    """A pair that was tried, and the mean loss on the samples held out."""

    rate: float
    clip: float
    loss: float


def find(
    session: Session,
    training: Training,
    samples: NDArray[np.int8],
    labels: NDArray[Any],
    batch: int,
    progress: Callable[[int, int, float], None],
) -> tuple[Trial, ...]:
    """All trials, the best first. Raises DataError where there are too few samples.

    `batch`: samples of one update. `progress`: (done, total, loss of the last trial). The banks stay as they are.
    """
    order = epoch_order(training.seed, 0, len(samples))
    held = min(HELD_OUT, len(order) // 5)
    whole = min(TRAINED, len(order) - held) // batch * batch  # a short batch would wait for a commit
    if held == 0 or whole == 0:
        raise DataError(f"{len(order)} training samples are too few to try rates on.", "Give --rate a number.")
    unseen, seen = order[:held], order[held : held + whole]
    pairs = [(rate, clip) for rate in RATES for clip in (CLIPS[:1] if training.head_only else CLIPS)]
    found: list[Trial] = []
    tried = replace(training, epochs=1, epoch_samples=len(seen), schedule="constant", fresh=True)
    for rate, clip in pairs:
        session.begin(replace(tried, rate=rate, clip=clip))
        for index in seen:
            session.train(samples[index], labels[index])
        loss = float(np.mean([session.infer(samples[index], labels[index]).loss for index in unseen]))
        found.append(Trial(rate, clip, loss))
        progress(len(found), len(pairs), loss)
    return tuple(sorted(found, key=lambda trial: trial.loss))
