# SPDX-License-Identifier: Apache-2.0
"""What every graph must satisfy; called after every pass."""

from __future__ import annotations

import numpy as np

from medyate.errors import GraphError
from medyate.ir import Graph, Weights
from medyate.ops import OPS

REPORT = "Please report this with the model: the importer or a pass is at fault."


def validate(graph: Graph, weights: Weights) -> Graph:
    """Returns the graph unchanged. Raises GraphError naming the node that breaks a rule."""
    known = {graph.input}
    names: set[str] = set()
    for node in graph:
        if node.name in names:
            raise GraphError(f"two nodes are called '{node.name}'.", REPORT)
        names.add(node.name)
        if node.op not in OPS:
            raise GraphError(f"node '{node.name}' has the unknown operation '{node.op}'.", REPORT)
        missing = [name for name in node.inputs if name not in known]
        if missing or node.output in known:
            raise GraphError(f"node '{node.name}' is out of order at {missing or node.output}.", REPORT)
        known.add(node.output)
        op = OPS[node.op]
        inputs = graph.input_shapes(node)
        if not isinstance(node.attrs, op.attrs) or op.shape(node.attrs, inputs) != graph.shapes[node.output]:
            raise GraphError(f"node '{node.name}' does not make the shape it declares.", REPORT)
        for role, shape in op.weights(node.attrs, inputs).items():
            _verify_array(node.name, role, shape, weights)
    if graph.output not in known:
        raise GraphError(f"nothing makes the output '{graph.output}'.", REPORT)
    return graph


def _verify_array(node: str, role: str, shape: tuple[int, ...], weights: Weights) -> None:
    array = weights.get(f"{node}.{role}")
    if array is None or array.shape != shape:
        found = None if array is None else array.shape
        raise GraphError(f"node '{node}' wants a {role} of {shape}, found {found}.", REPORT)
    if not np.isfinite(np.asarray(array, dtype=np.float64)).all():
        raise GraphError(
            f"the {role} of node '{node}' holds NaN or infinite values.",
            "Export the model again from a checkpoint that is sound.",
        )
