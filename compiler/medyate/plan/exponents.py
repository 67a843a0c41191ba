# SPDX-License-Identifier: Apache-2.0
"""First values of the predicted exponents: how large each gradient is relative to the loss gradient.

The quantised network runs in PyTorch with the head that training starts from, or where that is all zeros, with
the one of the preliminary fine-tuning. The slot of a gradient starts at the median over the samples of
16 log2(max |stored| / max |softmax - onehot|).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import cache
from medyate.ir import QGraph, Weights
from medyate.ops import OPS
from medyate.plan.steps import Gradient, Loss
from medyate.quantize.apply import integer_tensors, integers, run_integers

START = -160
"""Ten octaves below the loss gradient: for a gradient that no sample reached."""


def tensor_gradients(
    qgraph: QGraph,
    weights: Weights,
    samples: NDArray[np.int8],
    labels: NDArray[Any],
    head: tuple[NDArray[np.float32], NDArray[np.float32]],
    loss: Loss,
) -> tuple[dict[str, tuple[Any, Any]], Any]:
    """dL/dq of every tensor, whole and without what its clamp mask drops, and the stored loss gradients.

    One row per sample: the loss is summed over the samples, so that each row is its own sample's gradient. The
    loss gradients (n, outputs) are in units of 2^15. `head`: weight (outputs, features) and bias (outputs,).
    """
    import torch

    from medyate.real import channels_last

    kept: dict[str, Any] = {}

    def observe(name: str, value: Any) -> Any:
        kept[name] = value
        value.retain_grad()
        return value

    x = torch.from_numpy(samples.transpose(0, 3, 1, 2).astype(np.float64)).requires_grad_()
    features = run_integers(qgraph, integer_tensors(weights), x, observe)
    quant = qgraph.quant[qgraph.graph.output]
    real = (channels_last(features) - quant.zero) * quant.scale
    weight, bias = (torch.from_numpy(array.astype(np.float64)) for array in head)
    logits = real @ weight.T + bias
    logits.retain_grad()
    targets = torch.from_numpy(labels)
    if loss.squared:
        total = (logits - targets).square().sum() / (2 * loss.outputs)
    else:
        total = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    errors = logits.grad / (loss.unit * 2**15)
    pairs = {name: (value.grad, value.grad) for name, value in kept.items()}
    for index, node in enumerate(qgraph.graph):
        if OPS[node.op].fuses:
            value, (low, high) = kept[node.output], integers(qgraph, weights, index).bounds
            pairs[node.output] = value.grad, value.grad * ((value > low) & (value < high))
    return pairs, errors


def gradient_maxima(
    qgraph: QGraph,
    weights: Weights,
    samples: NDArray[np.int8],
    labels: NDArray[Any],
    head: tuple[NDArray[np.float32], NDArray[np.float32]],
    loss: Loss,
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Largest |dL/dq| of every tensor and sample, (2, n): whole and masked; and of the loss gradients, (n,).

    Kept from one plan to the next: memory changes nothing of them.
    """
    tensors, errors = "tensor/", "errors"

    def make() -> dict[str, NDArray[Any]]:
        pairs, of_loss = tensor_gradients(qgraph, weights, samples, labels, head, loss)
        found = {
            tensors + name: np.stack([grad.abs().flatten(1).amax(1).numpy() for grad in pair])
            for name, pair in pairs.items()
        }
        return {**found, errors: of_loss.abs().amax(1).numpy()}

    found = cache.kept("gradients", (qgraph, weights, samples, labels, *head, loss), make)
    return {name.removeprefix(tensors): array for name, array in found.items() if name != errors}, found[errors]


def starting_exponents(
    gradients: Mapping[str, NDArray[np.float64]],
    errors: NDArray[np.float64],
    stored: tuple[Gradient, ...],
    slots: int,
) -> tuple[int, ...]:
    """One start per slot, of the maxima of `gradient_maxima`; `stored` are the gradients that open a slot."""
    reference = np.maximum(errors, 1e-9)
    start = [START] * slots
    for gradient in stored:
        if gradient.tensor not in gradients:
            continue
        whole, masked = gradients[gradient.tensor]
        ratio = (masked if gradient.mask else whole) / gradient.factor / reference
        ratio = np.sort(ratio[ratio > 0])
        if len(ratio):  # the lower one of two in the middle
            start[gradient.slot] = int(np.ceil(16 * np.log2(float(ratio[(len(ratio) - 1) // 2]))))
    return tuple(start)
