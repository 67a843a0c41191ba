# SPDX-License-Identifier: Apache-2.0
"""Which parameters a selection trains: a mask for every one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medyate.ir import Node
from medyate.ops import OPS
from medyate.real import Network
from medyate.strategies.selection import Selection


def masks(network: Network, selection: Selection) -> dict[str, torch.Tensor | None]:
    """By the weight's name: what is trained of it, 1 or 0; None: all of it."""
    found: dict[str, torch.Tensor | None] = {}
    for node in network.graph:
        if node.name in selection.channels:
            found[node.weight_name("weight")] = _inputs(network, node, selection.channels[node.name])
        if node.name in selection.biases:
            found[node.weight_name("bias")] = None
        if node.name in selection.neurons:
            axes = OPS[node.op].channel_axes
            assert axes is not None
            chosen = selection.neurons[node.name]
            for role, axis in (("weight", axes[0]), ("bias", 0)):
                parameter = network.weight(node.weight_name(role))
                found[node.weight_name(role)] = _one(torch.zeros_like(parameter), axis, chosen)
    return found


def _inputs(network: Network, node: Node, channels: Sequence[int]) -> torch.Tensor | None:
    axes = OPS[node.op].channel_axes
    assert axes is not None
    weight = network.weight(node.weight_name("weight"))
    groups = getattr(node.attrs, "groups", 1)
    if len(channels) == groups * weight.shape[axes[1]]:
        return None
    mask = torch.zeros_like(weight)
    if groups == 1:
        return _one(mask, axes[1], channels)
    parts = mask.view(groups, -1, *mask.shape[1:])  # a view: each has input channels of its own
    for channel in channels:
        part, inner = divmod(channel, weight.shape[axes[1]])
        parts[part].select(axes[1], inner).fill_(1.0)
    return mask


def _one(mask: torch.Tensor, axis: int, chosen: Sequence[int]) -> torch.Tensor:
    return mask.index_fill_(axis, torch.tensor(chosen, device=mask.device), 1.0)
