# SPDX-License-Identifier: Apache-2.0
"""What a model file consists of: the table of `medyate inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medyate.errors import MedyateError
from medyate.frontends import load
from medyate.ops import OPS
from medyate.passes.pipeline import normalise, simplify

BYTES = {"weight": 1, "bias": 4, "table": 1}
"""In flash, by role."""


def describe(model: Path, output: str = "") -> dict[str, Any]:
    """Layers with shapes, MACs, parameters and bytes; what blocks training, if anything does.

    Raises UnsupportedOpError naming the operation that blocks the import itself.
    """
    imported = load(model, output)
    whole = simplify(imported)
    graph = whole.graph
    blocked: list[str] = []
    trained: frozenset[str] = frozenset()
    notes = list(imported.notes)
    if len(imported.outputs) > 1:
        listed = ", ".join(f"'{name}'" for name in imported.outputs)
        notes.append(f"the model has {len(imported.outputs)} outputs: {listed}; this is the way to one (--output)")
    try:
        normal = normalise(imported)
        trained = frozenset(node.name for node in normal.graph)
        notes += [normal.ending.describe()] if normal.ending.describe() else []
    except MedyateError as error:
        blocked.append(f"it can be run, not trained: {error}")
    rows: list[dict[str, Any]] = []
    for node in graph:
        op, inputs = OPS[node.op], graph.input_shapes(node)
        arrays = {role: np.asarray(whole.weights[node.weight_name(role)]) for role in op.weights(node.attrs, inputs)}
        if op.channel_cost is None:
            trainable = ""
        elif node.name in trained:
            trainable = "yes"
        else:
            trainable = "" if blocked else "head"
        rows.append(
            {
                "layer": node.name,
                "op": node.op,
                "inputs": [list(shape) for shape in inputs],
                "output": list(graph.shapes[node.output]),
                "macs": op.macs(node.attrs, inputs),
                "parameters": sum(array.size for array in arrays.values()),
                "bytes": sum(BYTES[role] * array.size for role, array in arrays.items()),
                "trainable": trainable,
            }
        )
    totals = {key: sum(row[key] for row in rows) for key in ("macs", "parameters", "bytes")}
    numbers = "float32" if imported.qgraph is None else "int8, as it came"
    return {
        "network": graph.name,
        "numbers": numbers,
        "layers": rows,
        **totals,
        "outputs": list(imported.outputs),
        "notes": notes,
        "blocked": blocked,
    }
