# SPDX-License-Identifier: Apache-2.0
"""Feeds a target with samples: evaluates it, trains one epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.datasets import epoch_order
from medyate.run.log import Score
from medyate.run.session import Session, Training


@dataclass(frozen=True)
class Tick:
    """Progress of a run, for whoever shows it."""

    phase: str
    done: int
    total: int
    loss: float
    accuracy: float
    epoch: int = 0
    """Epoch being trained, from 1; 0 while evaluating."""


Progress = Callable[[Tick], None]


@dataclass(frozen=True)
class Parts:
    """Samples as the device takes them, and their labels."""

    x_train: NDArray[np.int8]
    y_train: NDArray[Any]
    x_test: NDArray[np.int8]
    y_test: NDArray[Any]


def evaluate(
    session: Session, samples: NDArray[np.int8], labels: NDArray[Any], phase: str, progress: Progress
) -> Score:
    """Accuracy and loss over all samples, by the device's own inference."""
    right, loss = 0, 0.0
    predictions = []
    for i, (sample, label) in enumerate(zip(samples, labels, strict=True)):
        result = session.infer(sample, label)
        predictions.append(result.prediction)
        right += labels.ndim == 1 and result.prediction == int(label)
        loss += result.loss
        progress(Tick(phase, i + 1, len(samples), loss / (i + 1), right / (i + 1)))
    if labels.ndim == 2:
        return Score(None, loss / len(samples))
    return Score(right / len(samples), loss / len(samples), tuple(predictions))


def logit_range(session: Session, samples: NDArray[np.int8], progress: Progress) -> list[float]:
    """Smallest and largest logit over some samples: the range that an exported head needs."""
    low, high = 0.0, 0.0
    for i, sample in enumerate(samples):
        session.infer(sample)
        logits = session.logits() / 65536
        low, high = min(low, float(logits.min())), max(high, float(logits.max()))
        progress(Tick("logits", i + 1, len(samples), 0.0, 0.0))
    return [low, high]


def train_epoch(
    session: Session,
    parts: Parts,
    training: Training,
    epoch: int,
    efforts: tuple[list[int], list[float]],
    progress: Progress,
) -> dict[str, Any]:
    """All steps of an epoch, counted from 0, without its commit; its entry in the log.

    `efforts`: to which each step's instructions and milliseconds are added.
    """
    instructions, milliseconds = efforts
    labels = parts.y_train
    order = epoch_order(training.seed, epoch, len(parts.x_train))[: training.epoch_samples]
    selection = np.zeros(0, bool) if training.head_only else session.selection()
    loss, right, saturations = 0.0, 0, 0
    for i, index in enumerate(order):
        result = session.train(parts.x_train[index], labels[index])
        loss += result.loss
        right += labels.ndim == 1 and result.prediction == int(labels[index])
        saturations = result.saturations
        instructions.append(result.instructions)
        milliseconds.append(result.milliseconds)
        name = f"epoch {epoch + 1}/{training.epochs}"
        progress(Tick(name, i + 1, len(order), loss / (i + 1), right / (i + 1), epoch + 1))
    return {
        "epoch": epoch + 1,
        "loss": loss / len(order),
        "train_accuracy": right / len(order) if labels.ndim == 1 else None,
        "saturations": saturations,
        "selected": [int(c) for c in np.flatnonzero(selection)],
    }
