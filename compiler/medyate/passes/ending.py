# SPDX-License-Identifier: Apache-2.0
"""How a network ends: the classifier, found from the output backwards, and what stands behind it.

Training replaces the classifier by the head, which reads the features in front of it. Behind a classifier there may
be functions of the logits (softmax, sigmoid), clamps, factors, the mean over a map, and changes of scale or shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.functions import Function
from medyate.ir import Activation, Graph, Node, Shape, Weights
from medyate.ops.average_pool import AveragePool
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise

LINKS = ("softmax", "sigmoid")
"""Functions that turn logits into probabilities: training takes the logits."""


@dataclass(frozen=True)
class Ending:
    """A network cut in two."""

    features: str
    """The tensor that the classifier reads; without a classifier, what the network ends in."""
    pooled: bool
    """Whether the head reads the mean of the features over their map."""
    classifier: Node | None
    behind: tuple[Node, ...]
    """What follows the classifier, in running order."""
    link: str
    """Of LINKS, or ''."""
    clamp: Activation
    """Range of a clamp on the logits."""
    keeps: str
    """Why the classifier cannot be what the head starts from; '' where it can."""

    size: Shape
    """Of the features."""

    def describe(self) -> str:
        """What the head is put on, in a sentence without its full stop; '' where it replaces the classifier."""
        if not self.keeps:
            return ""
        size = "x".join(map(str, self.size))
        where = f"'{self.features}' ({size})"
        where = f"the mean of {where} over its map" if self.pooled else where
        return f"{self.keeps}: a new head reads {where}"


def find(graph: Graph) -> Ending:
    """Walks from the output to the classifier."""
    behind: list[Node] = []
    link, clamp, whole = "", cast(Activation, None), False
    name = graph.output
    while (node := graph.producer.get(name)) is not None and (name == graph.output or len(graph.consumers[name]) == 1):
        a = node.attrs
        if isinstance(a, Conv2d):
            return _cut(graph, node, tuple(behind[::-1]), link, _both(clamp, a.activation), whole)
        if not _passes(graph, node, link):
            break
        if node.op == "softmax" or (isinstance(a, Function) and a.kind in LINKS):
            link = node.op if node.op == "softmax" else cast(Function, a).kind
            clamp = None  # what stands behind limits shares, not logits
        elif isinstance(a, Function) and a.kind == "clip":
            clamp = _both(clamp, (a.low, a.high))
        elif isinstance(a, Depthwise):
            clamp = _both(clamp, a.activation)
        whole = whole or isinstance(a, AveragePool)
        behind.append(node)
        name = node.inputs[0]
    return _without(graph, tuple(behind[::-1]), link)


def _both(outer: Activation, inner: Activation) -> Activation:
    """One clamp for two."""
    if outer is None or inner is None:
        return outer or inner
    return max(outer[0], inner[0]), min(outer[1], inner[1])


def _passes(graph: Graph, node: Node, link: str) -> bool:
    """Whether a classifier may stand in front of the node."""
    a, shape = node.attrs, graph.shapes[node.inputs[0]]
    if node.op == "softmax" or (isinstance(a, Function) and a.kind in LINKS):
        return not link
    if isinstance(a, Function):
        return a.kind in ("clip", "identity")
    if isinstance(a, AveragePool):
        return a.kernel == shape[:2] and not any(a.pads)
    return node.op in ("reshape", "batch_norm") or (isinstance(a, Depthwise) and _pointwise(a))


def _pointwise(a: Conv2d | Depthwise) -> bool:
    return (a.kernel, a.stride, a.pads) == ((1, 1), (1, 1), (0, 0, 0, 0)) and getattr(a, "groups", 1) == 1


def _cut(graph: Graph, node: Node, behind: tuple[Node, ...], link: str, clamp: Activation, whole: bool) -> Ending:
    """The ending, if the convolution in front of it is a classifier."""
    a, source = cast(Conv2d, node.attrs), node.inputs[0]
    shape = graph.shapes[source]
    covers = a.kernel == shape[:2] and not any(a.pads) and a.groups == 1
    if not covers and not _pointwise(a):
        return _without(graph, behind, link)
    keeps = ""
    if not covers and not whole:
        height, width = graph.shapes[node.output][:2]
        keeps = f"'{node.name}' gives an answer for each of {height}x{width} cells, training takes one for a sample"
    elif not covers and clamp is not None:
        keeps = f"a clamp stands between '{node.name}' and the mean over its map"
    elif link and any(n.op in ("depthwise", "batch_norm") for n in _behind_link(behind)):
        keeps = f"a factor stands behind the {link}"
    elif link and not covers and any(n.op == "average_pool" for n in _behind_link(behind)):
        keeps = f"a {link} stands between '{node.name}' and the mean over its map"
    elif any(n.op in ("depthwise", "batch_norm") for n in behind) and (clamp or any(n.op == "reshape" for n in behind)):
        keeps = f"a clamp or a change of shape stands between '{node.name}' and the factors behind it"
    return Ending(source, not covers, node, behind, link, clamp, keeps, shape)


def _without(graph: Graph, behind: tuple[Node, ...], link: str) -> Ending:
    """No classifier: the features are the output, without a function that gives probabilities."""
    features = graph.output
    if link:
        features = next(node.inputs[0] for node in behind if node.op == "softmax" or _kind(node) in LINKS)
    shape = graph.shapes[features]
    return Ending(features, shape[:2] != (1, 1), None, (), link, None, "the network ends in features", shape)


def _behind_link(behind: tuple[Node, ...]) -> tuple[Node, ...]:
    """What follows the function that turns logits into shares."""
    at = next(number for number, node in enumerate(behind) if node.op == "softmax" or _kind(node) in LINKS)
    return behind[at + 1 :]


def _kind(node: Node) -> str:
    return node.attrs.kind if isinstance(node.attrs, Function) else ""


Classifier = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight (classes, features) and bias."""


def split(graph: Graph, weights: Weights) -> tuple[Graph, Weights, Ending, Classifier | None]:
    """(backbone, its weights, the ending, the classifier where the head can start from it).

    The backbone ends in what the head reads. Weights are real numbers; features run in (H, W, C) order.
    """
    ending = find(graph)
    kept = _up_to(graph, ending.features)
    output, tensors = ending.features, {graph.input: graph.shapes[graph.input]}
    tensors |= {node.output: graph.shapes[node.output] for node in kept}
    if ending.pooled:
        pool = _pool(graph, ending.features)
        kept, output = (*kept, pool), pool.output
        tensors[output] = (1, 1, graph.shapes[ending.features][2])
    backbone = replace(graph, nodes=kept, tensors=tuple(tensors.items()), output=output)
    names = {node.name for node in kept}
    rest = {name: array for name, array in weights.items() if name.rpartition(".")[0] in names}
    classifier = None if ending.keeps or ending.classifier is None else _classifier(weights, ending)
    return backbone, rest, ending, classifier


def _up_to(graph: Graph, output: str) -> tuple[Node, ...]:
    """The nodes that a tensor depends on."""
    wanted, found = {output}, []
    for node in reversed(graph.nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            found.append(node)
    return tuple(found[::-1])


def _pool(graph: Graph, source: str) -> Node:
    extent: Shape = graph.shapes[source]
    taken = {node.name for node in graph} | set(graph.shapes)
    name = "features"
    while name in taken:
        name += "_"
    return Node(name, "average_pool", (source,), name, AveragePool(extent[:2], extent[:2]))


def _classifier(weights: Weights, ending: Ending) -> Classifier:
    """The classifier with the factors behind it."""
    assert ending.classifier is not None
    weight = np.asarray(weights[ending.classifier.weight_name("weight")], np.float32)
    bias = np.asarray(weights[ending.classifier.weight_name("bias")], np.float32)
    weight = weight.reshape(len(weight), -1)
    for node in ending.behind:
        if isinstance(node.attrs, Depthwise):
            scale = np.asarray(weights[node.weight_name("weight")], np.float32).reshape(-1)
            weight = weight * scale[:, None]
            bias = bias * scale + np.asarray(weights[node.weight_name("bias")], np.float32)
    return weight, bias
