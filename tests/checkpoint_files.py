# SPDX-License-Identifier: Apache-2.0
"""A small quantised network in the format of tiny-training's checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np

RELU6 = (6 / 255, -128)


class Recipe:
    """Makes layers whose scales follow on from each other."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(4)
        self.quant: tuple[float, int] = (1 / 127.5, 0)

    def params(self, output: tuple[float, int]) -> dict[str, Any]:
        (x_scale, x_zero), (y_scale, y_zero) = self.quant, output
        self.quant = output
        return {"x_scale": x_scale, "x_zero": x_zero, "y_scale": y_scale, "y_zero": y_zero}

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        output: tuple[float, int],
        stride: int = 1,
        groups: int = 1,
        extent: int = 8,
    ) -> dict[str, Any]:
        params = self.params(output)
        taps = inputs // groups * kernel * kernel
        params["weight"] = self.rng.integers(-127, 128, (outputs, inputs // groups, kernel, kernel)).astype(np.int8)
        params["bias"] = self.rng.integers(-2000, 2000, outputs).astype(np.int32)
        params["w_scales"] = (self.rng.uniform(0.5, 1.5, outputs) / (60 * taps**0.5)).astype(np.float32)
        return {
            "in_channel": inputs,
            "out_channel": outputs,
            "kernel_size": (kernel, kernel),
            "stride": stride,
            "groups": groups,
            "in_shape": extent * stride,
            "out_shape": extent,
            "act": None,
            "params": params,
        }

    def block(self, channels: int, hidden: int, outputs: int, kernel: int, stride: int, extent: int) -> dict[str, Any]:
        before = self.quant
        block: dict[str, Any] = {
            "pointwise1": self.conv(channels, hidden, 1, RELU6, extent=extent * stride) if hidden != channels else None,
            "depthwise": self.conv(hidden, hidden, kernel, RELU6, stride, hidden, extent),
            "pointwise2": self.conv(hidden, outputs, 1, (0.05, 3), extent=extent),
            "residual": None,
            "se": None,
        }
        if stride == 1 and channels == outputs:
            self.quant = before
            block["residual"] = {"in_channel": channels, "params": self.params((0.06, -5))}
        return block


def network() -> dict[str, Any]:
    """Two blocks, one of them added, an expanding and a plain one."""
    r = Recipe()
    first = r.conv(3, 6, 3, RELU6, 2)
    blocks = [r.block(6, 6, 4, 3, 1, 8), r.block(4, 12, 4, 5, 1, 8), r.block(4, 12, 6, 7, 2, 4)]
    return {
        "first_conv": first,
        "blocks": blocks,
        "feature_mix": None,
        "classifier": r.conv(6, 5, 1, (0.1, 2), 1, 1, 1),
    }
