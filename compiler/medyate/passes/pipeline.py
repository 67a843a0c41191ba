# SPDX-License-Identifier: Apache-2.0
"""Normalising: the ordered passes, verified after each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medyate.errors import UnsupportedOpError
from medyate.ir import Graph, Weights
from medyate.ops import OPS
from medyate.passes.fold_batchnorm import fold_batchnorm
from medyate.passes.fuse_activation import fuse_activation
from medyate.passes.split_head import split_head
from medyate.verify import verify

PASSES = (fold_batchnorm, fuse_activation)


@dataclass(frozen=True)
class Normalised:
    """A backbone that ends in features, and the classifier that was behind it."""

    graph: Graph
    weights: Weights
    head_weight: NDArray[np.float32]
    """(classes, features) of the pretrained classifier; features in (H, W, C) order."""
    head_bias: NDArray[np.float32]


def normalise(graph: Graph, weights: Weights) -> Normalised:
    """Runs every pass. Raises UnsupportedOpError or ModelError naming what blocks."""
    softmax_free = graph
    for rewrite in PASSES:
        softmax_free, weights = rewrite(softmax_free, weights)
        verify(softmax_free, weights)
    backbone, rest, (head_weight, head_bias) = split_head(softmax_free, weights)
    verify(backbone, rest)
    for node in backbone:
        if OPS[node.op].kernel is None:
            supported = tuple(name for name, op in OPS.items() if op.kernel is not None)
            raise UnsupportedOpError(node.name, node.op, "it stands inside the network", supported)
    return Normalised(backbone, rest, head_weight, head_bias)
