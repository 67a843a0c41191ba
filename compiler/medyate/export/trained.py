# SPDX-License-Identifier: Apache-2.0
"""The trained network as a quantised graph: the backbone's new integers, and the head in int8.

The backbone is what the device computes, bit for bit. The device's head has int16 weights and 32-bit
logits; formats of int8 networks have neither, so its weights become int8 with one scale, and its logits
int8 with the range that the run saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import artefact, files
from medyate.arithmetic.functions import Function
from medyate.arithmetic.scheme import WEIGHT_MAX, activation_quant
from medyate.arithmetic.tflite_kernels import RESULTS
from medyate.compiled import COMPILE
from medyate.errors import ArtefactError, GraphError
from medyate.graph_json import from_json, quantised_from_json
from medyate.ir import Activation, Attrs, Node, QGraph, Quant, Weights
from medyate.ops.conv2d import Conv2d
from medyate.ops.softmax import OUTPUT, Softmax
from medyate.passes.ending import find
from medyate.plan.steps import HEAD_WEIGHT_BITS
from medyate.quantize.apply import add_constants, bias_limit, scales_for_bias
from medyate.run.generation import Facts, Generation
from medyate.run.train import Compiled
from medyate.validate import validate

HEAD = "classifier"
SIGMOID_ENDS = 8.0
"""Beyond it, a sigmoid in steps of 1/256 is 0 or 1."""
LINKED: Mapping[str, tuple[str, Attrs, Quant]] = {
    "softmax": ("softmax", Softmax(), OUTPUT),
    "sigmoid": ("activation", Function("sigmoid"), RESULTS["sigmoid"]),
}
"""(operation, attributes, scale) of what turns logits into shares."""


def read_compiled(compiled: Compiled) -> tuple[QGraph, Weights, Facts]:
    """The compiled backbone, its integers, and what its banks hold."""
    stored = artefact.read_json(compiled.folder / "03_quantised.json")
    qgraph = quantised_from_json(stored)
    weights = artefact.read_arrays(compiled.folder / "03_quantised.npz")
    with files.boundary(ArtefactError, f"the stages in '{compiled.folder}' do not fit each other", COMPILE):
        try:
            validate(qgraph.graph, weights)
        except GraphError as error:
            raise ArtefactError(f"03_quantised in '{compiled.folder}' is damaged: {error.what}", COMPILE) from error
        return qgraph, weights, Facts.of(compiled.plan, compiled.model, qgraph, weights)


def logit_range(log: Mapping[str, Any]) -> tuple[float, float]:
    """Smallest and largest logit of the run's last evaluation. Raises ArtefactError without one."""
    bounds: Any = log.get("logit_range")
    if not artefact.fits(bounds, [float]) or len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ArtefactError(
            "the run log names no range of logits: the run has not ended.", "Go on with `medyate run --resume`."
        )
    return float(bounds[0]), float(bounds[1])


def trained_network(
    compiled: Compiled, qgraph: QGraph, weights: Weights, generation: Generation, logits: tuple[float, float]
) -> tuple[QGraph, Weights]:
    """Backbone and head as one int8 network, and behind them what turned the imported network's logits into shares."""
    arrays = dict(weights)
    for layer, values in generation.weights.items():
        arrays[f"{layer}.weight"] = values
    for layer, biases in generation.biases.items():
        arrays[f"{layer}.bias"] = biases
    ending = find(from_json(artefact.read_json(compiled.folder / "01_import.json")))
    if not compiled.model["classes"]:
        kept = None if ending.keeps or ending.link else ending.clamp  # a new head was trained without it
        return with_head(qgraph, arrays, generation, logits, clamp=kept)
    classifier = ending.classifier
    single = isinstance(classifier, Node) and getattr(classifier.attrs, "channels", 0) == 1
    if ending.link == "sigmoid" and single and len(generation.head_bias) == 2:
        return with_head(qgraph, arrays, _difference(generation), _apart(logits), link="sigmoid")
    return with_head(qgraph, arrays, generation, logits, link="softmax" if ending.link else "")


def _difference(generation: Generation) -> Generation:
    """One logit for two: the sigmoid of their difference is the second one's share in a softmax."""
    weight, bias = (array.astype(np.int64) for array in (generation.head_weight, generation.head_bias))
    return replace(generation, head_weight=weight[1:] - weight[:1], head_bias=bias[1:] - bias[:1])


def _apart(logits: tuple[float, float]) -> tuple[float, float]:
    """Range of the difference of two logits, as far as a sigmoid tells numbers apart in 8 bits."""
    most = min(max(logits[1] - logits[0], 1.0), SIGMOID_ENDS)
    return -most, most


def with_head(
    qgraph: QGraph,
    weights: Weights,
    generation: Generation,
    logits: tuple[float, float],
    *,
    link: str = "",
    clamp: Activation = None,
) -> tuple[QGraph, Weights]:
    """Appends the classifier, and a softmax or sigmoid if asked for."""
    graph = qgraph.graph
    shape = graph.shapes[graph.output]
    taken = {node.name for node in graph} | set(graph.shapes)
    name = HEAD
    while name in taken:
        name += "_"
    classes = len(generation.head_bias)
    attrs = Conv2d(classes, (shape[0], shape[1]), activation=clamp)
    node = Node(name, "conv2d", (graph.output,), f"{name}/logits", attrs)
    nodes, tensors = [*graph.nodes, node], [*graph.tensors, (node.output, (1, 1, classes))]
    quants = [*qgraph.quants, (node.output, activation_quant(*logits))]
    if link:
        op, last, quant = LINKED[link]
        nodes.append(Node(f"{name}/{link}", op, (node.output,), f"{name}/shares", last))
        tensors.append((f"{name}/shares", (1, 1, classes)))
        quants.append((f"{name}/shares", quant))
    extended = replace(graph, nodes=tuple(nodes), tensors=tuple(tensors), output=tensors[-1][0])
    arrays = {**weights, **head_arrays(name, generation, qgraph.quant[graph.output].scale, (classes, *shape))}
    result = replace(qgraph, graph=extended, quants=tuple(quants))
    return result, add_constants(result, arrays)


def head_arrays(
    name: str, generation: Generation, feature_scale: float, shape: tuple[int, ...]
) -> dict[str, NDArray[Any]]:
    """Weight, bias and scale of the classifier in int8."""
    real = generation.head_weight * 2.0**-HEAD_WEIGHT_BITS
    bias = generation.head_bias / 2.0**16
    own = float(np.float32(max(float(np.abs(real).max()), 1e-9) / WEIGHT_MAX))
    scale = max(own, float(scales_for_bias(bias, feature_scale, bias_limit(real.shape[1])).max()))
    weight = np.clip(np.round(real / scale), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    return {
        f"{name}.weight": weight.reshape(shape),
        f"{name}.bias": np.round(bias / (feature_scale * scale)).astype(np.int32),
        f"{name}.scale": np.full(len(weight), scale),
    }
