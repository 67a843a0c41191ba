# SPDX-License-Identifier: Apache-2.0
"""digitnet on a chip: the epochs that a test trains, and what this machine's build gives for them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medyate.run.session import Digests, Session, Training
from medyate.run.train import Compiled, connect, int8_samples
from shared_files import field_digits

STEPS = 3
"""Of an epoch."""
FRESH = Training(0.02, 4, STEPS, flip=True, seed=3)
RESUME = replace(FRESH, fresh=False)


@dataclass(frozen=True)
class Trained:
    """What an epoch gave, and what is held behind its commit: at once, and by a start that finds it."""

    losses: list[float]
    done: Digests
    found: Digests


@dataclass(frozen=True)
class Pair:
    """digitnet for a chip and for this machine by the same plan, and the right epochs."""

    name: str
    chip: Compiled
    right: tuple[Trained, Trained]


@functools.cache
def samples_of(folder: Path) -> list[tuple[NDArray[np.int8], int]]:
    data = field_digits()
    return list(zip(int8_samples(Compiled.read(folder), data)[0][: 2 * STEPS], data.y_train.tolist(), strict=False))


def epoch(session: Session, image: Compiled, number: int) -> list[float]:
    samples = samples_of(image.folder)[number * STEPS : (number + 1) * STEPS]
    return [session.train(sample, label).loss for sample, label in samples]


def committed(session: Session, image: Compiled, number: int) -> tuple[list[float], Digests]:
    """Losses of an epoch, digests behind its commit."""
    losses = epoch(session, image, number)
    session.commit()
    return losses, session.digests()


def learned(digests: Digests) -> tuple[int, int]:
    """Deltas and state: the generation that is in use."""
    return digests.deltas, digests.state


def right(host: Compiled, flash: Path) -> tuple[Trained, Trained]:
    with connect(host, "host", flash) as session:
        session.begin(FRESH)
        first, done = committed(session, host, 0)
    with connect(host, "host", flash) as session:
        session.begin(RESUME)
        found = session.digests()
        second, done_then = committed(session, host, 1)
    with connect(host, "host", flash) as session:
        session.begin(RESUME)
        return Trained(first, done, found), Trained(second, done_then, session.digests())
