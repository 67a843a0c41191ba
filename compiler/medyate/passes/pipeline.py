# SPDX-License-Identifier: Apache-2.0
"""Normalising: the ordered passes, verified after each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import UINT8_SHIFT
from medyate.errors import UnsupportedOpError
from medyate.ir import Graph, Imported, Node, QGraph, Weights
from medyate.ops import OPS
from medyate.passes.ending import Classifier, Ending, split
from medyate.passes.fold_batchnorm import fold_batchnorm
from medyate.passes.fuse_activation import fuse_activation
from medyate.quantize.apply import dequantize
from medyate.validate import validate

PASSES = (fold_batchnorm, fuse_activation)


@dataclass(frozen=True)
class Normalised:
    """A backbone that ends in features, and what was behind them."""

    graph: Graph
    weights: Weights
    """Real numbers, whatever the file holds."""
    ending: Ending
    classifier: Classifier | None
    """The pretrained one; features in (H, W, C) order. None: there is none that a head could start from."""
    quantised: tuple[QGraph, Weights] | None
    """The backbone with its own integers, if the network came quantised."""


def simplify(imported: Imported) -> Imported:
    """The whole network in operations that have kernels. One that came quantised stays as it is."""
    graph, weights = imported.graph, imported.weights
    if imported.qgraph is None:
        for rewrite in PASSES:
            graph, weights = rewrite(graph, weights)
            validate(graph, weights)
    return replace(imported, graph=graph, weights=weights)


def normalise(imported: Imported) -> Normalised:
    """Runs every pass and cuts the classifier off.

    Raises UnsupportedOpError or ModelError naming what blocks.
    """
    whole = simplify(imported)
    qgraph = whole.qgraph
    real = whole.weights if qgraph is None else dequantize(qgraph, whole.weights)
    graph, weights, ending, classifier = split(whole.graph, real)
    validate(graph, weights)
    trainable = tuple(name for name, op in OPS.items() if op.backward is not None or op.channel_axes is not None)
    for node in graph:
        if node.op not in trainable:
            raise UnsupportedOpError(node.name, node.op, "it stands inside the network", trainable)
    quantised = None
    if qgraph is not None:
        scale = {**qgraph.quant, graph.output: qgraph.quant[ending.features]}
        kept = replace(qgraph, graph=graph, quants=tuple((name, scale[name]) for name, _ in graph.tensors))
        names = {node.name for node in graph}
        own = {k: array for k, array in whole.weights.items() if k.rpartition(".")[0] in names}
        quantised = kept, own | _as_stored(graph.nodes[-1], whole.weights) if ending.pooled else own
    return Normalised(graph, weights, ending, classifier, quantised)


def _as_stored(pool: Node, weights: Weights) -> dict[str, NDArray[Any]]:
    """A mean that rounds as those of the file's type do."""
    origins = [array for name, array in weights.items() if name.endswith(".origin")]
    shifted = any(n.endswith(".zero") and f"{n.removesuffix('.zero')}.product" not in weights for n in weights)
    return {pool.weight_name("origin"): origins[0] if origins else np.array(-UINT8_SHIFT)} if origins or shifted else {}
