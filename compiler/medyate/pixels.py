# SPDX-License-Identifier: Apache-2.0
"""What pixels mean to a network: said when it was assumed, doubted when another meaning fits labels better."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medyate.chance import chance
from medyate.datasets import AUTO, SCALINGS, STORED, Dataset, Scaling, epoch_order, meaning_of, scaling
from medyate.errors import DataError
from medyate.ir import Imported, Quant
from medyate.quantize.apply import rounded

SAMPLES = 100
MEANS = {
    "signed": "pixel / 127.5 - 1",
    "unit": "pixel / 255",
    "raw": "the values as they are",
    STORED: "the integers of the network's input",
}


def remarks(imported: Imported, dataset: Dataset, pixels: str) -> Iterator[str]:
    """Sentences without a full stop; `imported` is the whole network, `dataset` fits its input."""
    quant = imported.input_quant
    chosen = meaning_of(pixels, dataset.x_train, quant)
    if pixels == AUTO and dataset.x_train.dtype.kind in "iu":
        yield f"--pixels auto chose '{chosen}' ({MEANS[chosen]})"
    yield from _better(imported, dataset, chosen, quant)


def _better(imported: Imported, dataset: Dataset, chosen: str, quant: Quant | None) -> Iterator[str]:
    """Of the original network on labelled training samples, where its outputs are the data's classes."""
    outputs = imported.graph.shapes[imported.graph.output]
    if dataset.regression or outputs != (1, 1, dataset.outputs):
        return
    order = epoch_order(0, 0, len(dataset.x_train))[:SAMPLES]
    x, y = dataset.x_train[order], dataset.y_train[order]
    right: dict[str, float] = {}
    for name in dict.fromkeys((chosen, *SCALINGS, STORED)):
        try:
            meaning = scaling(name, x, quant)
        except DataError:  # not for such samples
            continue
        right[name] = float((_predictions(imported, x, meaning, quant) == y).mean())
    best = max(right, key=lambda name: right[name])
    if right[best] - right[chosen] > chance(right[best], right[chosen], len(x), 3.0):
        yield (
            f"of {len(x)} labelled samples the original network gets {right[chosen]:.0%} right with --pixels {chosen}, "
            f"and {right[best]:.0%} with --pixels {best}"
        )


def _predictions(
    imported: Imported, x: NDArray[np.generic], meaning: Scaling, quant: Quant | None
) -> NDArray[np.int64]:
    if imported.qgraph is not None and quant is not None:
        steps = meaning.int8(x, quant).astype(np.float32)  # real arithmetic on them: integers take ten times as long
        real = rounded(imported.qgraph, imported.weights, (steps - quant.zero) * np.float32(quant.scale))
        predicted: NDArray[np.int64] = real.argmax(1)
        return predicted
    import torch

    from medyate.real import Network, channels_first, channels_last

    with torch.no_grad():
        outputs = channels_last(Network(imported.graph, imported.weights)(channels_first(meaning.real(x))))
    found: NDArray[np.int64] = outputs.numpy().argmax(1)
    return found
