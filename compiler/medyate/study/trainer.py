# SPDX-License-Identifier: Apache-2.0
"""The float reference: one training in PyTorch, epoch by epoch, of what a strategy selects.

SGD without momentum and weight decay, each tensor's gradient clipped to a norm (recipe.py), a linear warm-up, then a
cosine to zero. The head is always trained. It starts all but at zero, as on the device: a head of zeros would give no
gradient to those who ask for one before the first step.
Source: MeDyate, arXiv 2510.20979, section 4; the norm of a channel is DESIGN.md's, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate.datasets import Dataset, epoch_order
from medyate.ir import Node, elements
from medyate.ops import OPS
from medyate.passes.pipeline import Normalised
from medyate.rank.collect import channel_squares
from medyate.real import Network, channels_first
from medyate.recipe import CLIP
from medyate.sample.policy import SKIP, SQUARES
from medyate.strategies.candidates import Layers
from medyate.strategies.problem import Problem
from medyate.strategies.selection import Footprint, Selection, footprint, layer_macs
from medyate.strategies.strategy import Course, Given, Norms, Sampled, Strategy
from medyate.study.masks import masks
from medyate.study.seen import Seen
from medyate.study.tail import Tail

HEAD_STD = 1e-3
"""Of the head's weights at the start, next to the device's zeros."""
VELOCITY_SAMPLES = 16
"""Training samples on which neurons are compared."""


@dataclass(frozen=True)
class Recipe:
    """How it is trained."""

    epochs: int
    warmup: int
    batch: int
    rate: float
    seed: int
    clip: float = CLIP
    """Largest norm of a tensor's gradient in one step; 0: as large as it comes."""
    flip: bool = False
    gradient_samples: int = 256
    stability: bool = False
    norm: str = SQUARES
    """What an epoch sees of its channels: one of sample.policy.NORMS."""
    fit: str = SKIP
    """What becomes of a drawn channel that does not fit: one of sample.policy.FITS."""
    evaluate_each: bool = True
    """Accuracy after every epoch, not only after the last one."""

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step from 0; `steps` in an epoch."""
        warm, total = self.warmup * steps, self.epochs * steps
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave."""

    loss: float
    accuracy: float | None
    """On the test part; None where it was not measured."""
    footprint: Footprint
    deepest: int
    """Number of the first trained layer; the number of layers where only the head is."""
    p: float | None
    """Of a t-test between the norms of this epoch's full gradient and the last one's."""


def final_accuracy(epochs: Sequence[Epoch]) -> float:
    """On the test part, after the last epoch."""
    accuracy = epochs[-1].accuracy
    assert accuracy is not None  # the last one always is measured
    return accuracy


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Trainer:
    """One network on one task; also what oracles ask."""

    def __init__(
        self, normal: Normalised, samples: Mapping[str, NDArray[np.float32]], dataset: Dataset, recipe: Recipe
    ) -> None:
        """`samples`: real values of 'train' and 'test', (N, H, W, C)."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.graph = recipe, normal.graph
        self.network = Network(normal.graph, normal.weights).to(device())
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self.head = torch.nn.Linear(elements(normal.graph.shapes[normal.graph.output]), dataset.outputs).to(device())
        with torch.no_grad():
            self.head.weight.normal_(0.0, HEAD_STD)
            self.head.bias.zero_()
        self.x = {part: channels_first(array).to(device()) for part, array in samples.items()}
        self.y = {
            part: torch.from_numpy(labels).to(device())
            for part, labels in (("train", dataset.y_train), ("test", dataset.y_test))
        }
        self._nodes = {node.name: node for node in normal.graph}

    def train(self, strategy: Strategy, problem: Problem, progress: Callable[[int], None]) -> list[Epoch]:
        """All epochs. Raises BudgetError where the strategy can train nothing."""
        course = Course(strategy, problem, self.recipe.seed, self.recipe.fit)
        self.tail = Tail(self.network, self._reach(strategy, course, problem))
        kept = {part: self.tail.prefix(x) for part, x in self.x.items()} if not self.recipe.flip else {}
        test = kept["test"] if kept else self.tail.prefix(self.x["test"])
        macs, order = layer_macs(self.graph), [layer.layer for layer in problem.layers]
        epochs: list[Epoch] = []
        before: NDArray[np.float64] | None = None
        for epoch in range(self.recipe.epochs):
            p, before = self._stability(problem, before) if self.recipe.stability else (None, None)
            selection = course.select(epoch, self)
            loss, seen = self._epoch(epoch, selection, kept.get("train"))
            taken = footprint(selection, problem.layers, macs, problem.outputs)
            deepest = min((order.index(name) for name in selection.layers), default=len(order))
            over = epoch == self.recipe.epochs - 1 or not math.isfinite(loss)
            accuracy = self._accuracy(test) if over or self.recipe.evaluate_each else None
            epochs.append(Epoch(loss, accuracy, taken, deepest, p))
            progress(epoch + 1)
            if not math.isfinite(loss):  # it stays so
                return epochs + epochs[-1:] * (self.recipe.epochs - epoch - 1)
            course.observe(epoch, selection, seen)
        return epochs

    def _reach(self, strategy: Strategy, course: Course, problem: Problem) -> frozenset[str]:
        """Layers that may change; their prefix never does."""
        if isinstance(strategy.rule, Sampled):
            return frozenset(layer.layer for layer in course.layers)
        if isinstance(strategy.rule, Given):
            return strategy.rule.selection(problem).layers
        return frozenset(layer.layer for layer in problem.layers)

    def _epoch(
        self, epoch: int, selection: Selection, kept: tuple[torch.Tensor, ...] | None
    ) -> tuple[float, dict[str, NDArray[np.float64]]]:
        """(mean loss, the norm of every selected channel's gradients, by layer)."""
        trained = masks(self.network, selection)
        parameters = {name: self.network.weight(name).requires_grad_(True) for name in trained}
        seen = Seen(self.recipe.norm)
        y, total = self.y["train"], 0.0
        order = torch.from_numpy(epoch_order(self.recipe.seed, epoch, len(y))).to(device())
        batches = order.split(self.recipe.batch)  # type: ignore[no-untyped-call]
        generator = np.random.default_rng((self.recipe.seed, epoch))
        for step, batch in enumerate(batches):
            loss = self._loss(self._source(batch, kept, generator), y[batch])
            share = len(batch) / self.recipe.batch  # of a last, short batch each sample counts as much
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) * len(batch)
            rate = self.recipe.rate_at(epoch * len(batches) + step, len(batches))
            for name, parameter in parameters.items():
                gradient, mask = parameter.grad, trained[name]
                assert gradient is not None
                layer, _, role = name.rpartition(".")
                if role == "weight" and layer in selection.channels:
                    seen.add(self._nodes[layer], gradient)
                self._step(parameter, self._clipped(gradient if mask is None else gradient * mask), rate)
            for parameter in self.head.parameters():
                self._step(parameter, parameter.grad, rate)
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        found = {name: seen.norms(self._nodes[name])[list(chosen)] for name, chosen in selection.channels.items()}
        return total / len(y), found

    def _clipped(self, gradient: torch.Tensor) -> torch.Tensor:
        """No longer than is allowed."""
        if not self.recipe.clip:
            return gradient
        norm = torch.linalg.vector_norm(gradient)
        return gradient * torch.clamp(self.recipe.clip / (norm + 1e-30), max=1.0)

    @staticmethod
    def _step(parameter: torch.Tensor, gradient: Any, rate: float) -> None:
        with torch.no_grad():
            parameter -= rate * gradient
        parameter.grad = None

    def _source(
        self, batch: torch.Tensor, kept: tuple[torch.Tensor, ...] | None, generator: np.random.Generator
    ) -> tuple[torch.Tensor, ...]:
        """A batch at the cut; mirrored at random where that is asked for."""
        if kept is not None:
            return tuple(tensor[batch] for tensor in kept)
        x = self.x["train"][batch]
        turned = torch.from_numpy(generator.random(len(batch)) < 0.5).to(device())
        return self.tail.prefix(torch.where(turned[:, None, None, None], x.flip(3), x))

    def _loss(self, source: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.head(self.tail.features(source)), labels)

    def _accuracy(self, test: tuple[torch.Tensor, ...]) -> float:
        right, labels = 0, self.y["test"]
        with torch.no_grad():
            for batch in torch.arange(len(labels), device=device()).split(64):  # type: ignore[no-untyped-call]
                scores = self.head(self.tail.features(tuple(tensor[batch] for tensor in test)))
                right += int((scores.argmax(1) == labels[batch]).sum())
        return right / len(labels)

    # --- Evidence ---

    def gradient_norms(self, layers: Layers) -> Norms:
        """Of the mean loss over the first training samples of a seeded order."""
        names = {layer.layer: self._nodes[layer.layer].weight_name("weight") for layer in layers}
        parameters = {name: self.network.weight(weight).requires_grad_(True) for name, weight in names.items()}
        chosen = torch.from_numpy(epoch_order(self.recipe.seed, 0, len(self.y["train"])))
        chosen = chosen[: self.recipe.gradient_samples].to(device())
        for batch in chosen.split(64):  # type: ignore[no-untyped-call]
            loss = self._loss(self.tail.prefix(self.x["train"][batch]), self.y["train"][batch])
            (loss * (len(batch) / len(chosen))).backward()  # type: ignore[no-untyped-call]
        found = {name: self._norms(parameter, self._nodes[name]) for name, parameter in parameters.items()}
        for parameter in (*parameters.values(), *self.head.parameters()):
            parameter.grad = None
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        return found

    @staticmethod
    def _norms(parameter: torch.Tensor, node: Node) -> NDArray[np.float64]:
        return np.asarray(channel_squares(parameter.grad, node).sqrt().double().cpu())

    def outputs(self) -> dict[str, NDArray[np.float32]]:
        """Every layer's outputs on the first training samples of a seeded order: (values, neurons)."""
        chosen = epoch_order(self.recipe.seed, 0, len(self.y["train"]))[:VELOCITY_SAMPLES]
        made = {node.output: node.name for node in self.graph if OPS[node.op].channel_axes is not None}
        found: dict[str, NDArray[np.float32]] = {}

        def observe(tensor: str, value: torch.Tensor) -> None:
            if tensor in made:
                found[made[tensor]] = value.movedim(1, -1).flatten(0, 2).cpu().numpy()

        with torch.no_grad():
            self.network(self.x["train"][torch.from_numpy(chosen).to(device())], observe)
        return found

    def _stability(
        self, problem: Problem, before: NDArray[np.float64] | None
    ) -> tuple[float | None, NDArray[np.float64]]:
        """(p that both epochs' norms have one mean, this epoch's norms)."""
        from scipy import stats

        layers = tuple(layer for layer in problem.layers if self._behind_cut(layer.layer))
        if not layers:  # the head alone is trained
            return None, np.zeros(0)
        norms = self.gradient_norms(layers)
        flat = np.concatenate(list(norms.values()))
        p = None if before is None else float(stats.ttest_ind(before, flat, equal_var=False).pvalue)
        return p, flat

    def _behind_cut(self, layer: str) -> bool:
        return self.graph.nodes.index(self._nodes[layer]) >= self.tail.first
