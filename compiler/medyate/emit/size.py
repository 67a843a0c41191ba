# SPDX-License-Identifier: Apache-2.0
"""How large an image will be, before it is built: its constants exactly, its code by a stated allowance."""

from __future__ import annotations

from medyate.emit.context import Context
from medyate.plan.plan import Plan

CODE_BYTES = 104 * 1024
"""Runtime, port and C library at -O3 with every kernel; where an image turns out larger, its banks are placed anew."""
NODE_BYTES = 640
"""Tables and calls of one node."""
WIDTHS = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4}


def constants_bytes(plan: Plan) -> int:
    """Weights, biases and multipliers."""
    return sum(WIDTHS[array.ctype] * len(array.values) for array in Context(plan).arrays)


def image_bytes(plan: Plan) -> int:
    """The whole image."""
    orders = sum(len(group.order) for group in plan.schedule.groups)
    return constants_bytes(plan) + orders + CODE_BYTES + NODE_BYTES * len(plan.qgraph.graph.nodes)
