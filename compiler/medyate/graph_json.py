# SPDX-License-Identifier: Apache-2.0
"""Graphs as readable JSON, and back: what the stages leave behind and `export` starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from medyate import files
from medyate.errors import ArtefactError
from medyate.ir import Graph, Node, QGraph, Quant
from medyate.ops import OPS


def to_json(graph: Graph, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A graph as readable JSON."""
    return {
        "name": graph.name,
        "input": graph.input,
        "output": graph.output,
        "tensors": {name: list(shape) for name, shape in graph.tensors},
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "inputs": list(node.inputs),
                "output": node.output,
                "attributes": {k: _plain(v) for k, v in dataclasses.asdict(node.attrs).items()},
            }
            for node in graph
        ],
        **(extra or {}),
    }


def _plain(value: object) -> object:
    """JSON has no infinity; it is written as a string."""
    if isinstance(value, float) and value in (float("inf"), -float("inf")):
        return str(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _record(value: object) -> Any:
    """The value of an attribute record."""
    if isinstance(value, list):
        return tuple(_record(v) for v in value)
    return float(value) if value in ("inf", "-inf") else value


def from_json(content: Mapping[str, Any]) -> Graph:
    """A graph that to_json wrote. Raises ArtefactError for anything else."""
    try:
        nodes = tuple(
            Node(
                str(entry["name"]),
                str(entry["op"]),
                tuple(map(str, entry["inputs"])),
                str(entry["output"]),
                OPS[entry["op"]].attrs(**{k: _record(v) for k, v in entry["attributes"].items()}),
            )
            for entry in content["nodes"]
        )
        tensors = tuple((str(name), (int(s[0]), int(s[1]), int(s[2]))) for name, s in content["tensors"].items())
        return Graph(str(content["name"]), str(content["input"]), str(content["output"]), nodes, tensors)
    except files.DAMAGE as error:
        raise ArtefactError(f"a stored graph is damaged ({error}).", "Run `medyate compile` again.") from error


def quantised_from_json(content: Mapping[str, Any]) -> QGraph:
    """A quantised graph: to_json with 'quant'. Raises ArtefactError for anything else."""
    graph = from_json(content)
    try:
        quants = tuple((name, Quant(float(q[0]), int(q[1]))) for name, q in content["quant"].items())
    except files.DAMAGE as error:
        raise ArtefactError(f"stored scales are damaged ({error}).", "Run `medyate compile` again.") from error
    return QGraph(graph, quants, bool(content.get("rounds_once", False)))
