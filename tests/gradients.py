# SPDX-License-Identifier: Apache-2.0
"""The device's gradients beside PyTorch autograd on the same integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate.ir import QGraph, Weights
from medyate.plan.plan import BiasLayer, Head, Plan
from medyate.plan.steps import HEAD_WEIGHT_BITS
from medyate.quantize.apply import integer_tensors, integers, run_integers
from medyate.real import channels_last
from probe import Probe


@dataclass(frozen=True)
class Reference:
    """Integer features of every sample, and dL/dW_q and dL/db_q of every layer, summed over the samples."""

    features: NDArray[np.float64]
    logits: NDArray[np.float64]
    gradients: dict[str, NDArray[np.float64]]


def autograd(
    qgraph: QGraph, weights: Weights, head: Head, samples: NDArray[np.int8], labels: NDArray[Any]
) -> Reference:
    """The fake-quantised network with DESIGN's mask convention, differentiated by PyTorch."""
    arrays = integer_tensors(weights)
    for name, array in arrays.items():
        array.requires_grad_(name.endswith((".weight", ".bias")))
    x = torch.from_numpy(samples.transpose(0, 3, 1, 2).astype(np.float64))
    features = run_integers(qgraph, arrays, x)
    quant = qgraph.quant[qgraph.graph.output]
    assert head.weight is not None and head.bias is not None
    weight = torch.from_numpy(head.weight.astype(np.float64) * 2.0**-HEAD_WEIGHT_BITS)
    bias = torch.from_numpy(head.bias / 65536)
    logits = (channels_last(features) - quant.zero) * quant.scale @ weight.T + bias
    loss_of(head, logits, labels).backward()
    found = {n: a.grad.numpy() for n, a in arrays.items() if a.grad is not None}
    return Reference(features.detach().permute(0, 2, 3, 1).numpy(), logits.detach().numpy(), found)


def loss_of(head: Head, logits: torch.Tensor, labels: NDArray[Any]) -> torch.Tensor:
    """What the device descends, summed over the samples: cross-entropy, or half the mean squared error."""
    wanted = torch.from_numpy(labels)
    if not head.loss.squared:
        return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
    return ((logits - wanted) ** 2).sum() / (2 * head.loss.outputs)


def device_gradient(plan: Plan, probe: Probe, index: int) -> NDArray[np.float64]:
    """dL/dW_q of a candidate layer as the device summed it, with its multipliers M[o]."""
    candidate = plan.candidates[index]
    multipliers = output_multipliers(plan, candidate.layer)
    gradient = probe.weight_gradient(index)
    conv = next(node.op for node in plan.qgraph.graph if node.name == candidate.layer) == "conv2d"
    return gradient * (multipliers[:, None, None, None] if conv else multipliers)


def device_bias_gradient(plan: Plan, probe: Probe, layer: BiasLayer) -> NDArray[np.float64]:
    """dL/db_q as the device summed it, with its multipliers M[o]."""
    return probe.biases[layer.first : layer.first + layer.count] * output_multipliers(plan, layer.layer)


def output_multipliers(plan: Plan, layer: str) -> NDArray[np.float64]:
    """M[o] times the factor of the gradient that reaches a layer."""
    position = [node.name for node in plan.qgraph.graph].index(layer)
    dy = next(s.dy for s in plan.schedule.plan.back if s.node == layer and s.kind == "layer")
    assert dy is not None
    return np.array(integers(plan.qgraph, plan.weights, position).multipliers) * dy.factor


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Cosine of the angle between two tensors; 1 if both are zero."""
    norms = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norms if norms > 0 else float(not a.any() and not b.any())
