# SPDX-License-Identifier: Apache-2.0
"""The float reference trainer: only what is selected changes, norms are those of autograd. Costs 5 s."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from conftest import DIGITNET
from medyate import datasets, frontends
from medyate.datasets import SCALINGS
from medyate.ops import OPS
from medyate.passes.pipeline import Normalised, normalise
from medyate.rank.collect import GradientNorms, channel_squares
from medyate.rank.lara import rank
from medyate.real import Network, channels_last
from medyate.sample.policy import NORMS
from medyate.strategies import STRATEGIES
from medyate.strategies.candidates import by_lara
from medyate.strategies.problem import Problem, Settings
from medyate.strategies.selection import Selection
from medyate.strategies.strategy import Course
from medyate.study.masks import masks
from medyate.study.seen import Seen
from medyate.study.tail import Tail, alive, cut
from medyate.study.trainer import Recipe, Trainer

RECIPE = Recipe(epochs=2, warmup=1, batch=16, rate=0.02, seed=3, gradient_samples=32)


@cache
def digitnet() -> Normalised:
    return normalise(frontends.load(DIGITNET))


@cache
def problem(budget: int = 3000) -> Problem:
    graph = digitnet().graph
    layers = [node.name for node in graph if OPS[node.op].channel_cost is not None]
    norms = {name: GradientNorms(i + 1.0, i + 1.0) for i, name in enumerate(layers)}
    return Problem(graph, digitnet().weights, rank(graph, "made up", norms), budget)


def trainer(recipe: Recipe = RECIPE) -> Trainer:
    found = datasets.load("digits").check(digitnet().graph.shapes[digitnet().graph.input])
    found = replace(found, x_train=found.x_train[:64], y_train=found.y_train[:64])
    samples = {"train": SCALINGS["signed"].real(found.x_train), "test": SCALINGS["signed"].real(found.x_test[:50])}
    return Trainer(digitnet(), samples, replace(found, y_test=found.y_test[:50]), recipe)


def test_the_tail_gives_what_the_whole_network_gives() -> None:
    network = Network(digitnet().graph, digitnet().weights)
    x = torch.randn(5, *(digitnet().graph.shapes[digitnet().graph.input][i] for i in (2, 0, 1)))
    expected = channels_last(network(x))
    graph = digitnet().graph
    firsts = set()
    for node in graph:
        tail = Tail(network, [node.name])
        firsts.add(tail.first)
        assert tail.first <= graph.nodes.index(node)
        torch.testing.assert_close(tail.features(tail.prefix(x)), expected)
    assert len(firsts) > 3
    assert cut(graph, []) == len(graph.nodes)
    assert alive(graph, 0) == (graph.input,)


@pytest.mark.parametrize("name", ["medyate", "bias", "velocity", "su", "last-k", "head", "full"])
def test_only_what_is_selected_changes(name: str) -> None:
    made, chosen = trainer(replace(RECIPE, epochs=1, warmup=0)), STRATEGIES[name]
    weights = {name: made.network.weight(name) for name in digitnet().weights}
    before = {name: value.clone() for name, value in weights.items()}
    selection = Course(chosen, problem(), RECIPE.seed).select(0, made)
    made.train(chosen, problem(), lambda _: None)
    trained = masks(made.network, selection)
    changed = set()
    for key, value in weights.items():
        mask = trained.get(key, torch.zeros_like(value))
        moved = value != before[key]
        assert not (moved & (mask == 0)).any() if mask is not None else moved.any()
        changed |= {key} if moved.any() else set()
    assert bool(changed) == (name != "head")
    assert float(made.head.weight.detach().abs().sum()) > 0


def test_gradient_norms_are_those_of_the_mean_loss() -> None:
    made, layers = trainer(), problem().layers
    made.tail = Tail(made.network, [layer.layer for layer in layers])
    torch.nn.init.normal_(made.head.weight)
    found = made.gradient_norms(layers)
    chosen = torch.from_numpy(datasets.epoch_order(RECIPE.seed, 0, 64)[:32])
    for parameter in made.network.parameters():
        parameter.requires_grad_(True)
    logits = made.head(channels_last(made.network(made.x["train"][chosen])))
    torch.nn.functional.cross_entropy(logits, made.y["train"][chosen]).backward()
    for node in digitnet().graph:
        if node.name in found:
            gradient = made.network.weight(node.weight_name("weight")).grad
            np.testing.assert_allclose(found[node.name], channel_squares(gradient, node).sqrt(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_channel_is_the_slice_that_reads_it(groups: int) -> None:
    """Input channel 3 of 4: the gradient of its slice is what its norm counts, and its mask is that slice."""
    from medyate.ir import Graph, Node
    from medyate.ops.conv2d import Conv2d

    node = Node("conv", "conv2d", ("x",), "y", Conv2d(6, (3, 3), pads=(1, 1, 1, 1), groups=groups))
    graph = Graph("one", "x", "y", (node,), (("x", (5, 5, 4)), ("y", (5, 5, 6))))
    random = np.random.default_rng(0)
    weights = {"conv.weight": random.normal(size=(6, 3, 3, 4 // groups)), "conv.bias": np.zeros(6)}
    network = Network(graph, {name: array.astype(np.float32) for name, array in weights.items()})
    x = torch.randn(2, 4, 5, 5)
    x[:, 3] = 0  # what reads this channel gets no gradient
    network(x).square().sum().backward()  # type: ignore[no-untyped-call]
    gradient = network.weight("conv.weight").grad
    assert (channel_squares(gradient, node) > 0).tolist() == [True, True, True, False]
    mask = masks(network, Selection({"conv": (3,)}))["conv.weight"]
    assert mask is not None
    assert torch.equal(mask != 0, gradient == 0)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    recipe = replace(RECIPE, epochs=10, warmup=2, rate=0.1)
    rates = [recipe.rate_at(step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[-1] < 0.001


def test_a_training_is_the_same_again_and_learns() -> None:
    course = STRATEGIES["medyate"]
    recipe = replace(RECIPE, epochs=6, stability=True)
    first, second = (trainer(recipe).train(course, problem(), lambda _: None) for _ in range(2))
    assert first == second
    assert first[-1].loss < 0.7 * first[0].loss
    assert first[0].p is None
    assert all(0.0 <= float(epoch.p or 0.0) <= 1.0 for epoch in first[1:])
    assert all(0 < epoch.footprint.elements <= 3000 for epoch in first)
    assert len({epoch.footprint for epoch in first}) > 1


def test_the_head_alone_has_no_norms_to_be_stable() -> None:
    epochs = trainer(replace(RECIPE, stability=True)).train(STRATEGIES["head"], problem(), lambda _: None)
    assert [epoch.p for epoch in epochs] == [None, None]


def test_flips_change_the_training() -> None:
    plain, flipped = (
        trainer(replace(RECIPE, flip=flip)).train(STRATEGIES["head"], problem(), print) for flip in (0, 1)
    )
    assert plain[-1].loss != flipped[-1].loss


def test_a_training_that_diverges_ends_early() -> None:
    epochs = trainer(replace(RECIPE, epochs=5, rate=1e39)).train(STRATEGIES["full"], problem(), lambda _: None)
    assert len(epochs) == 5
    assert not np.isfinite(epochs[-1].loss)


def test_no_step_of_a_layer_is_longer_than_rate_times_clip() -> None:
    recipe = replace(RECIPE, epochs=1, warmup=0, batch=64, rate=0.5, clip=1e-5)
    before = Network(digitnet().graph, digitnet().weights)
    own = trainer(recipe)
    own.train(STRATEGIES["full"], problem(), lambda _: None)
    for name, weight in own.network.named_parameters():
        length = float((weight - before.get_parameter(name)).detach().norm())
        assert length == pytest.approx(0.5e-5, rel=5e-2), name


def test_accuracy_is_measured_where_it_is_asked_for() -> None:
    recipe = replace(RECIPE, epochs=3, evaluate_each=False)
    first, second, last = trainer(recipe).train(STRATEGIES["head"], problem(), lambda _: None)
    assert first.accuracy is second.accuracy is None
    assert last.accuracy == trainer(replace(RECIPE, epochs=3)).train(STRATEGIES["head"], problem(), print)[-1].accuracy


@pytest.mark.parametrize("kind", NORMS)
def test_what_an_epoch_sees_of_its_gradients(kind: str) -> None:
    node = next(node for node in digitnet().graph if OPS[node.op].channel_axes is not None)
    shape = digitnet().weights[node.weight_name("weight")].shape
    steps = [torch.randn(shape) for _ in range(3)]
    seen = Seen(kind)
    for step in steps:
        seen.add(node, step)
    parts = {"squares": steps, "sum": [sum(steps[1:], steps[0])], "last": steps[-1:]}[kind]
    expected = sum(channel_squares(part, node) for part in parts).sqrt()
    assert seen.norms(node) == pytest.approx(expected.numpy(), rel=1e-5)


def test_settings_reach_the_strategy() -> None:
    few = replace(problem(), settings=Settings(k=2))
    epochs = trainer().train(STRATEGIES["medyate"], few, lambda _: None)
    chosen = [few.layers.index(layer) for layer in by_lara(few)]
    assert len(chosen) == 2
    assert {epoch.deepest for epoch in epochs} <= set(chosen)
