# SPDX-License-Identifier: Apache-2.0
"""Finds a recipe on the target: short trainings from the same weights, none of which is committed.

Each makes some passes over the same samples by the schedule of the whole; what counts is the loss on samples that none
saw, beside that of the weights before. A rate is tried with a tight and with a loose clip: what a network stands
depends on its depth and on how far its task is from what it knows. Images are flipped at random in the training where
mirrored samples lose no more than others. The head alone is trained, so that it is known what the rest of the network
adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.chance import NOISE
from medyate.datasets import epoch_order
from medyate.recipe import CLIP, RATE, over_horizon
from medyate.run.log import Score
from medyate.run.restart import repeat
from medyate.run.session import Session, Training

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
FIRST = RATES[2:6]
"""Are always tried. One beyond is tried where an edge is the best so far."""
CLIPS = (CLIP, 10 * CLIP)
STEPS = 256
"""Of one trial: passes over the samples, where they are fewer."""
HELD_OUT = 64
"""Samples at most; of fewer samples a fifth is held out."""
HEAD_SHARE, HEAD_STEPS = 4, 1024
"""The head is trained for this part of the training's steps, and for so many at least where the training has them."""
MIRRORED_MORE, MIRRORED_OF_START, MIRRORED_LEAST = 0.1, 0.01, 32
"""Flips are used where mirrored samples, of so many at least, lose no more than others by these shares of the loss now
and of that at the start: one pair of classes that are each other's mirror images costs more."""
FORWARD = 0.4
"""What training the head alone costs of a step, about: the way there without the way back."""


@dataclass(frozen=True)
class Trial:
    """A pair that was tried, and the mean loss on the samples held out."""

    rate: float
    clip: float
    loss: float


@dataclass(frozen=True)
class HeadOnly:
    """What the head alone learned in some of the training's steps."""

    rate: float
    steps: int
    accuracy: float | None
    """None where vectors are to be hit."""
    loss: float


@dataclass(frozen=True)
class Found:
    """The recipe, and what it follows from."""

    rate: float
    clip: float
    steps: int
    """Of one trial."""
    start_loss: float | None
    """Of the samples held out, before any training; None: there were too few to try on."""
    trials: tuple[Trial, ...]
    """The best first."""
    best: Trial | None = None
    """The one that the recipe follows from; None: none did better than no training, beyond noise."""
    mirrored: float | None = None
    """The loss of the held-out samples mirrored, after the best trial; None: that was not asked."""

    @property
    def flip(self) -> bool:
        """Whether the training flips samples at random."""
        if self.best is None or self.mirrored is None or self.start_loss is None:
            return False
        return self.mirrored <= (1 + MIRRORED_MORE) * self.best.loss + MIRRORED_OF_START * self.start_loss

    def text(self) -> str:
        """What was found, in one sentence."""
        chosen = f"rate {self.rate:.3g} and clip {self.clip:g}"
        if self.start_loss is None:
            return f"{chosen} are the defaults: too few samples to try others"
        count = len(self.trials)
        if self.best is None:
            return (
                f"{chosen} are the defaults: none of {count} trials of {self.steps} steps lowered the loss of held-out "
                f"samples (start {self.start_loss:.3g}, best {self.trials[0].loss:.3g})"
            )
        best = self.best
        return (
            f"{chosen}: of {count} trials of {self.steps} steps rate {best.rate:g}, clip {best.clip:g} was the best "
            f"(loss of held-out samples {self.start_loss:.3g} -> {best.loss:.3g}); longer trainings need lower rates"
            f"{self._flips()}"
        )

    def _flips(self) -> str:
        if self.mirrored is None:
            return ""
        if self.flip:
            return f"; random flips: mirrored samples lose no more, {self.mirrored:.3g} (--no-flip leaves them out)"
        return f"; no flips: mirrored samples lose more, {self.mirrored:.3g}"


def head_steps(training: Training) -> int:
    """For how long the head alone is trained."""
    total = training.epochs * training.epoch_samples
    return min(total, max(HEAD_STEPS, total // HEAD_SHARE))


def _held(samples: int) -> int:
    return min(HELD_OUT, samples // 5)


def _steps(training: Training, batch: int) -> int:
    """Whole batches: a short one would wait for a commit."""
    return min(STEPS, training.epochs * training.epoch_samples) // batch * batch


@dataclass(frozen=True)
class Bench:
    """Where trials are made: a target, and samples that they see and do not see."""

    session: Session
    training: Training
    samples: NDArray[np.int8]
    labels: NDArray[Any]
    batch: int
    """Samples of one update."""
    go_on: bool
    """When the target restarts."""
    progress: Callable[[int, int, float], None]
    """Trials done, all trials, loss of the last one."""
    ask_flips: bool = False
    """Whether flips are to be decided, too; samples are images then."""

    def cost(self, *, head: bool) -> str:
        """What the trials take, said before they are made; `head`: the head alone is going to be trained, too."""
        count, steps = len(FIRST) * len(self._clips), _steps(self.training, self.batch)
        return (
            f"finding a rate: {count} or more trials of {steps} steps, about {self.work(head=head):.2g} times the work "
            "of the training; --rate with a number skips them"
        )

    def work(self, *, head: bool) -> float:
        """The same as a share of the training's work, with the fewest trials that there can be."""
        held, steps = _held(len(self.samples)), _steps(self.training, self.batch)
        step = FORWARD if self.training.head_only else 1.0
        count = len(FIRST) * len(self._clips)
        work = count * step * steps + (count + 1) * FORWARD * held
        if self._asks_flips(held):
            work += step * steps + FORWARD * held
        if head:
            alone = self._alone()
            work += FORWARD * (len(FIRST) * _steps(alone, self.batch) + (len(FIRST) + 1) * held + alone.epoch_samples)
        return work / (step * self.training.epochs * self.training.epoch_samples)

    @property
    def _clips(self) -> tuple[float, ...]:
        return CLIPS[:1] if self.training.head_only else CLIPS

    def _asks_flips(self, held: int) -> bool:
        return self.ask_flips and held >= MIRRORED_LEAST

    def _alone(self) -> Training:
        """Of the head, before its rate is known."""
        steps = max(head_steps(self.training) // self.batch, 1) * self.batch
        return replace(self.training, head_only=True, epochs=1, epoch_samples=steps)

    def find(self) -> Found:
        """Rate and clip for the whole training. The banks stay as they are."""
        order = epoch_order(self.training.seed, 0, len(self.samples))
        held, steps = _held(len(order)), _steps(self.training, self.batch)
        unseen, seen = order[:held], order[held:]
        if held == 0 or steps == 0:
            return Found(RATE, CLIP, steps, None, ())
        start = repeat(self.session, self.go_on, partial(self._trial, RATE, CLIP, seen[:0], unseen))
        found: dict[Trial, NDArray[np.float64]] = {}

        def attempt(rates: Sequence[float]) -> None:
            for rate in rates:
                for clip in self._clips:
                    work = partial(self._trial, rate, clip, np.resize(seen, steps), unseen)
                    losses = repeat(self.session, self.go_on, work)
                    found[Trial(rate, clip, float(losses.mean()))] = losses
                    self.progress(len(found), max(len(self._clips) * len(FIRST), len(found)), float(losses.mean()))

        attempt(FIRST)
        while beyond := _beyond({trial.rate for trial in found}, min(found, key=_loss).rate):
            attempt(beyond)
        trials = tuple(sorted(found, key=_loss))
        best, loss = _choose(found), float(start.mean())
        if not _is_lower(found[best], start):
            return Found(RATE, CLIP, steps, loss, trials)
        rate, clip = over_horizon(best.rate, best.clip, steps, self.training.epochs * self.training.epoch_samples)
        mirrored = None
        if self._asks_flips(held):
            mirrored = self._mirrored(best, np.resize(seen, steps), unseen)
        return Found(rate, clip, steps, loss, trials, best, mirrored)

    def _mirrored(self, best: Trial, seen: NDArray[np.int64], unseen: NDArray[np.int64]) -> float:
        """The mean loss of unseen samples, mirrored, after a trial."""
        samples = np.concatenate([self.samples, self.samples[unseen][:, :, ::-1]])
        both = replace(self, samples=samples, labels=np.concatenate([self.labels, self.labels[unseen]]))
        mirror = np.arange(len(self.samples), len(samples))
        losses = repeat(self.session, self.go_on, partial(both._trial, best.rate, best.clip, seen, mirror))
        return float(losses.mean())

    def head_alone(self, look: Callable[[], Score]) -> HeadOnly:
        """What the head alone learns at a rate of its own; `look` evaluates the target as it is."""
        short = self._alone()
        found = replace(self, training=short, ask_flips=False).find()
        training = replace(short, rate=found.rate, fresh=True)
        count, steps = len(self.samples), short.epoch_samples
        order = np.concatenate([epoch_order(training.seed, i, count) for i in range(-(-steps // count))])[:steps]

        def learn() -> Score:
            self.session.begin(training)
            for index in order:
                self.session.train(self.samples[index], self.labels[index])
            return look()

        score = repeat(self.session, self.go_on, learn)
        return HeadOnly(found.rate, steps, score.accuracy, score.loss)

    def _trial(
        self, rate: float, clip: float, seen: NDArray[np.int64], unseen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The losses of unseen samples after one training."""
        training = replace(self.training, rate=rate, clip=clip, epochs=1, epoch_samples=max(len(seen), 1))
        self.session.begin(replace(training, fresh=True))
        for index in seen:
            self.session.train(self.samples[index], self.labels[index])
        return np.array([self.session.infer(self.samples[index], self.labels[index]).loss for index in unseen])


def _loss(trial: Trial) -> float:
    return trial.loss


def _is_lower(losses: NDArray[np.float64], start: NDArray[np.float64]) -> bool:
    """Whether losses of the same samples fell by more than chance explains."""
    gained = start - losses
    return bool(gained.mean() > NOISE * gained.std() / math.sqrt(len(gained)))


def _choose(found: Mapping[Trial, NDArray[np.float64]]) -> Trial:
    """The best trial; of two clips the loose one, unless the tight one is better beyond noise."""
    best = min(found, key=_loss)
    loose = min((trial for trial in found if trial.clip == max(CLIPS)), key=_loss, default=best)
    return best if _is_lower(found[best], found[loose]) else loose


def _beyond(tried: set[float], best: float) -> tuple[float, ...]:
    """The next rate where an edge of those tried is the best; none otherwise."""
    at = RATES.index(best)
    neighbours = [RATES[i] for i in (at - 1, at + 1) if 0 <= i < len(RATES)]
    return tuple(rate for rate in neighbours if rate not in tried)
