# SPDX-License-Identifier: Apache-2.0
"""The simulation of the device that tiny-training's authors define, in PyTorch: integers held in float.

It is written from their definition, and shares with the importer only the reading of the file:

    convolution   clamp(round((conv(x - x_zero, weight) + bias) * effective_scale) + y_zero)
    sum           clamp(round(((a - a_zero) * a_scale + (b - b_zero) * b_scale) / y_scale) + y_zero)
    pool          round(mean of x)

effective_scale is x_scale * w_scales / y_scale, made in double and kept in single precision, as all scales
are; the product with it and the quotient are double. Every round takes halves to the even number, every
clamp is that of int8. ReLU6 is nowhere: it is the end of an output's range.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medyate.errors import ModelError
from medyate.frontends.checkpoint import SAVE_AGAIN, read
from medyate.oracle import Given

BATCH = 16
"""Samples at a time: all of them would hold gigabytes of a layer's output."""


def run(path: Path, given: Given) -> NDArray[np.int8]:
    """Outputs (n, k) of the simulation, for samples in steps of the network's input."""
    content = read(path)
    x = torch.from_numpy(given.stored.transpose(0, 3, 1, 2).astype(np.float32))
    try:
        with torch.no_grad():
            outputs = torch.cat([_network(content, part).flatten(1) for part in torch.split(x, BATCH)])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be simulated ({str(error)[:120]}).", SAVE_AGAIN) from error
    found: NDArray[np.int8] = outputs.numpy().astype(np.int8)
    return found


def _network(content: Mapping[str, Any], x: Tensor) -> Tensor:
    x = _convolution(content["first_conv"], x)
    for block in content["blocks"]:
        x = _block(block, x)
    if content.get("feature_mix") is not None:
        x = _convolution(content["feature_mix"], x)
    return _convolution(content["classifier"], x.mean((2, 3), keepdim=True).round())


def _block(block: Mapping[str, Any], x: Tensor) -> Tensor:
    """Up to three convolutions, and the sum of what they make with what they were given."""
    made, last = x, None
    for part in ("pointwise1", "depthwise", "pointwise2"):
        if block.get(part) is not None:
            last = block[part]["params"]
            made = _convolution(block[part], made)
    if block.get("residual") is None:
        return made
    assert last is not None  # the importer refuses a block without a convolution
    own = block["residual"]["params"]
    given, found = (x - own["x_zero"]) * own["x_scale"], (made - last["y_zero"]) * last["y_scale"]
    return _int8(((given + found).double() / _single(own["y_scale"])).round() + own["y_zero"])


def _convolution(layer: Mapping[str, Any], x: Tensor) -> Tensor:
    params = layer["params"]
    weight, bias, w_scales = (params[name].values for name in ("weight", "bias", "w_scales"))
    scale = params["x_scale"] * w_scales.astype(np.float64) / params["y_scale"]
    padding = [(extent - 1) // 2 for extent in weight.shape[2:]]
    acc = functional.conv2d(
        x - params["x_zero"], _tensor(weight), stride=layer["stride"], padding=padding, groups=layer["groups"]
    )
    acc = acc.round().double() + _tensor(bias).double()[:, None, None]
    return _int8((acc * _tensor(scale).double()[:, None, None]).round() + params["y_zero"])


def _int8(x: Tensor) -> Tensor:
    return x.clamp(-128, 127).float()


def _single(value: float) -> float:
    """A scale as the simulation holds it."""
    return float(np.float32(value))


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
