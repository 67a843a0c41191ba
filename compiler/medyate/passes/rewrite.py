# SPDX-License-Identifier: Apache-2.0
"""The one way in which passes change a graph: drop a node and let its producer make its output."""

from __future__ import annotations

from dataclasses import replace

from medyate.ir import Attrs, Graph, Node


def absorb(graph: Graph, node: Node, into: Node, attrs: Attrs) -> Graph:
    """Removes `node`, the only reader of `into`; `into` gets `attrs` and makes the node's output."""
    merged = replace(into, output=node.output, attrs=attrs)
    nodes = tuple(merged if n is into else n for n in graph.nodes if n is not node)
    tensors = tuple(t for t in graph.tensors if t[0] != into.output)
    return replace(graph, nodes=nodes, tensors=tensors)


def only_producer(graph: Graph, node: Node) -> Node | None:
    """The producer of the node's input if nothing else reads it."""
    source = node.inputs[0]
    producer = graph.producer.get(source)
    if producer is None or len(graph.consumers[source]) != 1 or source == graph.output:
        return None
    return producer
