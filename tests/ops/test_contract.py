# SPDX-License-Identifier: Apache-2.0
"""Every operation x every case of its record: shapes, integers and gradients of C against PyTorch.

The operation stands between trainable 1x1 convolutions and a head, so that its gradient must pass
through it. No operation is named here: a new one is tested because it is in the list.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gradients import autograd, cosine, device_bias_gradient, device_gradient
from medyate.ir import Attrs, Graph, Node, QGraph, Weights, elements
from medyate.ops import OPS
from medyate.ops.add import Add
from medyate.ops.concat import Concat
from medyate.ops.conv2d import Conv2d
from medyate.ops.mul import Mul
from medyate.ops.opdef import Case, OpDef
from medyate.plan.budget import Limits
from medyate.plan.plan import Head, Plan, classes_loss, inference_plan, make_plan
from medyate.plan.selecting import Selecting
from medyate.quantize.apply import integer_tensors, quantize, run_integers
from medyate.rank.collect import GradientNorms
from medyate.rank.lara import channel_costs, rank
from medyate.validate import validate
from probe import Probe

CASES = [
    pytest.param(op, case, id=f"{op.name}-{number}") for op in OPS.values() for number, case in enumerate(op.cases)
]
EMITTED = [parameter for parameter in CASES if parameter.values[0].kernel is not None]
PASSED = [p for p in EMITTED if p.values[0].backward is not None or p.values[0].channel_axes is not None]
"""Operations that a gradient passes, or that have weights of their own."""
CLASSES = 3


def doubled(op: str, attrs: Attrs, rng: np.random.Generator) -> tuple[Graph, Weights]:
    """input -> a 1x1 convolution -> an operation that reads it twice."""
    shape = (4, 4, 3)
    conv = Node("in0", "conv2d", ("x",), "a0", Conv2d(3, (1, 1)))
    nodes = (conv, Node("op", op, ("a0", "a0"), "y", attrs))
    graph = Graph("case", "x", "y", nodes, (("x", shape), ("a0", shape), ("y", OPS[op].shape(attrs, (shape, shape)))))
    weights = {"in0.weight": rng.normal(0, 0.5, (3, 1, 1, 3)), "in0.bias": rng.normal(0, 0.5, 3)}
    return graph, {name: array.astype(np.float32) for name, array in weights.items()}


def sandwich(op: OpDef, case: Case, rng: np.random.Generator) -> tuple[Graph, Weights]:
    """input -> a convolution per operand, 1x1 unless operands differ in size -> the operation."""
    height, width = (max(operand[axis] for operand in case.inputs) for axis in (0, 1))
    shape = (height, width, case.inputs[0][2])
    tensors = [("x", shape)]
    nodes = []
    for number, operand in enumerate(case.inputs):
        window = (height - operand[0] + 1, width - operand[1] + 1)
        nodes.append(Node(f"in{number}", "conv2d", ("x",), f"a{number}", Conv2d(operand[2], window)))
        tensors.append((f"a{number}", operand))
    inputs = tuple(f"a{number}" for number in range(len(case.inputs)))
    nodes.append(Node("op", op.name, inputs, "y", case.attrs))
    tensors.append(("y", op.shape(case.attrs, case.inputs)))
    graph = Graph("case", "x", "y", tuple(nodes), tuple(tensors))
    weights = {}
    for node in graph:
        for role, dims in OPS[node.op].weights(node.attrs, graph.input_shapes(node)).items():
            weights[node.weight_name(role)] = rng.normal(0, 0.5, dims).astype(np.float32)
    validate(graph, weights)
    return graph, weights


def plan_for(qgraph: QGraph, integers: Weights, head: Head, samples: np.ndarray, labels: np.ndarray, bits: int) -> Plan:
    """A plan in which every input channel and every bias of every layer is trained at once."""
    norms = {name: GradientNorms(1.0, 1.0) for name in channel_costs(qgraph.graph)}
    ranking = rank(qgraph.graph, "case", norms)
    assert head.weight is not None
    assert head.bias is not None
    trained = (head.weight / np.float32(4096), head.bias / np.float32(65536))
    selecting = Selecting(biases=tuple(score.layer for score in ranking.scores))
    limits = Limits(1 << 20, alpha=1.0, grad_bits=bits, selecting=selecting)
    return make_plan(qgraph, integers, ranking, head, limits, (samples, labels, trained))


@pytest.mark.parametrize(("op", "case"), CASES)
def test_the_shape_rule_is_what_real_numbers_give(op: OpDef, case: Case) -> None:
    rng = np.random.default_rng(0)
    inputs = tuple(torch.from_numpy(rng.normal(size=(1, s[2], s[0], s[1])).astype(np.float32)) for s in case.inputs)
    arrays = {
        role: torch.from_numpy(rng.normal(size=dims).astype(np.float32))
        for role, dims in op.weights(case.attrs, case.inputs).items()
    }
    height, width, channels = op.shape(case.attrs, case.inputs)
    assert tuple(op.real(case.attrs, inputs, arrays).shape) == (1, channels, height, width)


@pytest.mark.parametrize(("op", "case"), EMITTED)
def test_inference_without_a_head_computes_the_integers_of_the_reference(op: OpDef, case: Case, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    graph, weights = sandwich(op, case, rng)
    samples = rng.integers(-128, 128, (8, *graph.shapes["x"])).astype(np.int8)
    qgraph, integers = quantize(graph, weights, rng.normal(0, 1, (8, *graph.shapes["x"])).astype(np.float32))
    probe = Probe(inference_plan(qgraph, integers, Limits(1 << 20)), tmp_path, record=False)
    probe.init()
    x = torch.from_numpy(samples.transpose(0, 3, 1, 2).astype(np.float64))
    expected = run_integers(qgraph, integer_tensors(integers), x).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack([probe.output(sample) for sample in samples]), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("op", "case"), PASSED)
def test_c_computes_the_integers_and_gradients_of_the_reference(
    op: OpDef, case: Case, bits: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    agrees(*sandwich(op, case, rng), bits, rng, tmp_path)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("attrs", [Add(), Mul(), Concat(2)], ids=["add", "mul", "concat"])
def test_an_input_that_is_read_twice_gets_both_gradients(attrs: Attrs, bits: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    op = next(op.name for op in OPS.values() if op.attrs is type(attrs))
    agrees(*doubled(op, attrs, rng), bits, rng, tmp_path)


def agrees(graph: Graph, weights: Weights, bits: int, rng: np.random.Generator, folder: Path) -> None:
    """Forward bit for bit, gradients within the bounds of their bits."""
    real = rng.normal(0, 1, (8, *graph.shapes["x"])).astype(np.float32)
    qgraph, integers = quantize(graph, weights, real)
    quant = qgraph.quant["x"]
    samples = np.clip(np.round(real / quant.scale) + quant.zero, -128, 127).astype(np.int8)
    labels = rng.integers(0, CLASSES, len(samples))
    features = elements(graph.shapes["y"])
    head = Head(
        classes_loss(CLASSES),
        rng.integers(-2000, 2000, (CLASSES, features)).astype(np.int16),
        np.zeros(CLASSES, np.int32),
    )
    plan = plan_for(qgraph, integers, head, samples, labels, bits)
    probe = Probe(plan, folder, record=True, flags=("-O1",))
    reference = autograd(qgraph, integers, head, samples, labels)
    probe.init()
    for number, sample in enumerate(samples):
        logits = probe.infer(sample)
        assert np.array_equal(probe.tensor("y"), reference.features[number])
        assert np.abs(logits / 65536 - reference.logits[number]).max() < 1e-3
    for sample, label in zip(samples, labels, strict=True):
        probe.gradient_step(sample, int(label), 40)
    bound = 0.999 if bits == 16 else 0.98
    for index, candidate in enumerate(plan.candidates):
        expected = reference.gradients[f"{candidate.layer}.weight"]
        found = device_gradient(plan, probe, index)
        assert cosine(found, expected) >= bound, candidate.layer
        assert 0.9 < np.sqrt((found**2).sum() / (expected**2).sum()) < 1.1
    for layer in plan.biases:
        expected = reference.gradients[f"{layer.layer}.bias"]
        found = device_bias_gradient(plan, probe, layer)
        assert cosine(found, expected) >= bound, layer.layer
        assert 0.9 < np.sqrt((found**2).sum() / (expected**2).sum()) < 1.1
