# SPDX-License-Identifier: Apache-2.0
"""Signs in a run's log that learning does not work, one rule each.

The bounds were set on digitnet (three epochs of 400 samples, clips 0 and 0.3, head new and kept): rates of 0.01 to 0.1
give none of these signs, rates from 10 (without a clip from 1) and labels that were shuffled give at least one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medyate import artefact
from medyate.chance import chance
from medyate.graph_json import from_json
from medyate.ir import Graph, elements
from medyate.run.untrained import untrained_share

HIGH_LOSS = 3.0
"""An epoch's loss in units of guessing's that no training within its bounds had."""
RISE = 1.5
"""And beyond the loss at the start."""
GUESSING = 0.97
"""A training loss of so much of guessing's is nothing learned."""
CLIPPED = 1e-3
"""Share of the stored gradients that were clipped: 2e-4 to 6e-4 where training works, from 1.5e-3 where it does not."""
UNTRAINED = 0.5
"""Share of weights in layers that look initial."""


@dataclass(frozen=True)
class Known:
    """What the rules take from beside the log."""

    outputs: int
    regression: bool
    test_samples: int
    stored: Callable[[Sequence[int]], int]
    """Gradient values that a step stores, by the numbers of the channels selected; 0 where only the head is trained."""
    untrained: float | None
    """See untrained.py."""


@dataclass(frozen=True)
class Sign:
    """A stable name and one sentence."""

    key: str
    text: str

    def to_json(self) -> dict[str, str]:
        """For the log."""
        return asdict(self)


def know(folder: Path, model: Mapping[str, Any], plan: Mapping[str, Any], test_samples: int) -> Known:
    """From the artefacts of a compiled model. Raises ArtefactError when one is missing."""
    graph = from_json(artefact.read_json(folder / "03_quantised.json"))
    whole = from_json(artefact.read_json(folder / "01_import.json"))
    share = untrained_share(whole, artefact.read_arrays(folder / "01_import.npz"))
    stored = partial(_stored, graph, plan["candidates"])
    return Known(int(model["outputs"]), not model["classes"], test_samples, stored, share)


def _stored(graph: Graph, candidates: Sequence[Mapping[str, Any]], selected: Sequence[int]) -> int:
    """Gradient values behind the deepest selected layer."""
    starts = np.cumsum([0] + [entry["channels"] for entry in candidates])
    layers = {candidates[i]["layer"] for i in np.searchsorted(starts, selected, side="right") - 1}
    deepest = min((i for i, node in enumerate(graph.nodes) if node.name in layers), default=len(graph.nodes))
    return sum(elements(graph.shapes[node.output]) for node in graph.nodes[deepest:])


def signs(log: Mapping[str, Any], known: Known) -> tuple[Sign, ...]:
    """What a person should hear of a run that ended."""
    rules = (_high_loss, _guessing, _no_better, _below_head_only, _clipped, _untrained)
    return tuple(sign for rule in rules for sign in rule(log, known))


def _guess(known: Known) -> float:
    """The loss of equal shares."""
    return math.log(max(known.outputs, 2))


def _high_loss(log: Mapping[str, Any], known: Known) -> Iterator[Sign]:
    start = log["loss_before"]
    bound = RISE * start if known.regression else max(RISE * start, HIGH_LOSS * _guess(known))
    losses = [entry["loss"] for entry in log["history"]]
    if losses and max(losses) > bound:
        text = f"the training loss rose to {max(losses):.3g} from {start:.3g} at the start: lower the rate"
        yield Sign("high_loss", text)


def _guessing(log: Mapping[str, Any], known: Known) -> Iterator[Sign]:
    if known.regression or not log["history"]:
        return
    loss, guess = log["history"][-1]["loss"], _guess(known)
    if loss >= GUESSING * guess:
        yield Sign(
            "guessing",
            f"the training loss of the last epoch, {loss:.3g}, is no lower than that of guessing ({guess:.3g}): "
            "look at labels, --pixels and the rate",
        )


def _no_better(log: Mapping[str, Any], known: Known) -> Iterator[Sign]:
    what = "loss" if log["accuracy_before"] is None else "accuracy"
    before, after = log[f"{what}_before"], log[f"{what}_after"]
    if after is None or not log["history"]:
        return
    better = after < before if what == "loss" else after - before > chance(before, after, known.test_samples)
    if not better:
        share = "" if what == "loss" else f", beyond the noise of {known.test_samples} test samples"
        yield Sign("no_better", f"the {what} is no better than before: {before:.4f} -> {after:.4f}{share}")


def _below_head_only(log: Mapping[str, Any], known: Known) -> Iterator[Sign]:
    head, after = log["accuracy_head_only"], log["accuracy_after"]
    if head is None or after is None or log["head_only"]:
        return
    if head - after > chance(head, after, known.test_samples):
        yield Sign("below_head_only", f"the head alone reached {head:.4f}, this training {after:.4f}: lower the rate")


def _clipped(log: Mapping[str, Any], known: Known) -> Iterator[Sign]:
    steps = [(entry["saturations"], known.stored(entry["selected"])) for entry in log["history"]]
    shares = [clipped / (log["epoch_samples"] * values) for clipped, values in steps if values]
    if shares and max(shares) > CLIPPED:
        yield Sign(
            "clipped_gradients",
            f"{max(shares):.2%} of an epoch's gradients were clipped: try a --rate below {log['rate']:.3g}",
        )


def _untrained(_log: Mapping[str, Any], known: Known) -> Iterator[Sign]:
    if known.untrained is not None and known.untrained >= UNTRAINED:
        yield Sign(
            "untrained_weights",
            f"{known.untrained:.0%} of the network's weights look as if they had never been trained: "
            "the method is for pretrained networks",
        )
