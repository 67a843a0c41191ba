# SPDX-License-Identifier: Apache-2.0
"""Normalising: the ordered passes, verified after each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medyate.errors import UnsupportedOpError
from medyate.ir import Graph, Imported, QGraph, Weights
from medyate.ops import OPS
from medyate.passes.fold_batchnorm import fold_batchnorm
from medyate.passes.fuse_activation import fuse_activation
from medyate.passes.split_head import split_head
from medyate.quantize.apply import dequantize
from medyate.validate import validate

PASSES = (fold_batchnorm, fuse_activation)


@dataclass(frozen=True)
class Normalised:
    """A backbone that ends in features, and the classifier that was behind it."""

    graph: Graph
    weights: Weights
    """Real numbers, whatever the file holds."""
    head_weight: NDArray[np.float32]
    """(classes, features) of the pretrained classifier; features in (H, W, C) order."""
    head_bias: NDArray[np.float32]
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
    graph, weights, (head_weight, head_bias) = split_head(whole.graph, real)
    validate(graph, weights)
    trainable = tuple(name for name, op in OPS.items() if op.backward is not None or op.channel_axes is not None)
    for node in graph:
        if node.op not in trainable:
            raise UnsupportedOpError(node.name, node.op, "it stands inside the network", trainable)
    quantised = None
    if qgraph is not None:
        kept = replace(qgraph, graph=graph, quants=tuple((name, qgraph.quant[name]) for name, _ in graph.tensors))
        names = {node.name for node in graph}
        quantised = kept, {k: array for k, array in whole.weights.items() if k.rpartition(".")[0] in names}
    return Normalised(graph, weights, head_weight, head_bias, quantised)
