# SPDX-License-Identifier: Apache-2.0
"""Which planned value is meant: no name that a network gives its tensors or nodes can stand for another one."""

from __future__ import annotations

from typing import NamedTuple


class ValueId(NamedTuple):
    """One planned value. Values of different kinds are different, whatever they belong to is called."""

    kind: str
    """
    'tensor'    of the network; 'again': made once more by a rerun
    'gradient'  its name is the gradient's own
    'mask'      of a node
    'row', 'back', 'tap', 'sums', 'sum'   scratch and sums of a node
    'place'     of a group's scratch, whose steps take turns
    'logits', 'dlogits', 'target', 'acc'  of the head
    """
    of: str = ""
    """A tensor, a node or a gradient."""
    number: int = -1
    """Of a rerun or a group."""
    tensor: str = ""
    """Of a sum."""

    def __str__(self) -> str:
        """As plans and pictures call it; two values may read alike."""
        again = f"/again {self.number}" if self.number >= 0 else ""
        match self.kind:
            case "tensor" | "gradient" | "again":
                return f"{self.of}{again}"
            case "place":
                return f"scratch {self.number}"
            case "sum":
                return f"{self.of}/sum/{self.tensor}"
            case "acc":
                return "head/acc"
            case "logits" | "dlogits" | "target":
                return self.kind
            case kind:
                return f"{self.of}/{kind}{again}"


def tensor(name: str) -> ValueId:
    """A tensor as the forward pass leaves it."""
    return ValueId("tensor", name)
