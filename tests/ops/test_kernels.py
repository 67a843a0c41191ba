# SPDX-License-Identifier: Apache-2.0
"""Where the arithmetic is exact, so is the result: backward kernels against integer sums in PyTorch.

Before any requantisation the accumulators of an input gradient and the sums of a weight gradient are
plain integers; C and the reference must agree on every one of them, deltas and saved maps included.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

from clibrary import load
from medyate.ledger import RECORD_HEAD_BYTES, align
from medyate.ops import OPS
from medyate.ops.opdef import Case, OpDef

WEIGHTED = [
    pytest.param(op, case, id=f"{op.name}-{number}")
    for op in OPS.values()
    if op.channel_axes is not None
    for number, case in enumerate(op.cases)
]
SOURCES = (
    "src/ops/conv.c",
    "src/ops/conv2d.c",
    "src/ops/depthwise.c",
    "kernels/ref/conv2d_kernels.c",
    "kernels/ref/depthwise_kernels.c",
)
POINTER = ctypes.c_void_p


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load("kernel_probe.c", tmp_path_factory.mktemp("kernels"), SOURCES)


def address(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(POINTER)


def input_channels_first(weight: np.ndarray, depthwise: bool, groups: int) -> np.ndarray:
    """(C, KH, KW, outputs that read the channel), as records keep it."""
    if depthwise:
        return np.moveaxis(weight, 2, 0)[..., None]
    split = weight.reshape(groups, -1, *weight.shape[1:])  # (groups, O, KH, KW, I)
    return np.ascontiguousarray(split.transpose(0, 4, 2, 3, 1)).reshape(-1, *weight.shape[1:3], split.shape[1])


@pytest.mark.parametrize(("op", "case"), WEIGHTED)
def test_backward_kernels_compute_the_exact_integers(op: OpDef, case: Case, kernels: ctypes.CDLL) -> None:
    rng = np.random.default_rng(2)
    a, shape = case.attrs, case.inputs[0]
    out = op.shape(a, case.inputs)
    zero, weight_zero = (int(z) for z in rng.integers(-100, 100, 2))
    weight = rng.integers(-127, 128, op.weights(a, case.inputs)["weight"]).astype(np.int8)
    delta = rng.integers(-128, 128, weight.shape).astype(np.int8)
    x = rng.integers(-128, 128, shape).astype(np.int8)
    dy = rng.integers(-127, 128, out).astype(np.int8)
    grad_mult = rng.integers(1, 4000, out[2]).astype(np.int16)
    g_acc = (dy.astype(np.int64) * grad_mult + 64) >> 7

    # float64 holds these integers exactly
    x_real = torch.tensor(x.astype(np.float64) - zero).permute(2, 0, 1)[None].requires_grad_()
    w_real = torch.tensor(weight.astype(np.float64) - weight_zero + delta, requires_grad=True)
    arrays = {"weight": w_real, "bias": torch.zeros(out[2], dtype=torch.float64)}
    plain = type(a)(**{**vars(a), "activation": None})
    y = op.real(plain, (x_real,), arrays)
    dx = torch.autograd.grad(
        y, x_real, torch.tensor(g_acc.astype(np.float64)).permute(2, 0, 1)[None], retain_graph=True
    )
    dw = torch.autograd.grad(y, w_real, torch.tensor(dy.astype(np.float64)).permute(2, 0, 1)[None])

    depthwise = op.channel_axes[0] == op.channel_axes[1]  # type: ignore[index]
    groups = shape[2] if depthwise else a.groups  # type: ignore[attr-defined]
    group = (shape[2] // groups, out[2] // groups)
    by_channel = input_channels_first(delta, depthwise, groups)
    delta_bytes = by_channel[0].size
    record_bytes = align(RECORD_HEAD_BYTES + delta_bytes + shape[0] * shape[1], 4)
    records = np.zeros((shape[2], record_bytes), np.uint8)
    for channel in range(shape[2]):
        records[channel, 8] = channel
        records[channel, 10 : 10 + delta_bytes] = by_channel[channel].reshape(-1).view(np.uint8)
        saved = np.ascontiguousarray(x[:, :, channel]).reshape(-1).view(np.uint8)
        records[channel, 10 + delta_bytes : 10 + delta_bytes + len(saved)] = saved
    geometry = np.array(
        [
            *shape,
            *out,
            *a.kernel,
            *a.stride,
            *a.dilation,
            a.pads[0],
            a.pads[1],
            *group,
            zero,
            0,
            weight_zero,
            *(0,) * 5,
        ],
        np.int32,
    )  # type: ignore[attr-defined]
    found_dx = np.zeros(shape, np.int32)
    found_dw = np.zeros((shape[2], a.kernel[0] * a.kernel[1], group[1]), np.int64)  # type: ignore[attr-defined]
    kernels.probe_backward(
        int(depthwise),
        address(geometry),
        address(grad_mult),
        address(weight),
        address(records),
        ctypes.c_uint32(record_bytes),
        ctypes.c_uint32(delta_bytes),
        address(dy),
        address(found_dx),
        address(found_dw),
    )
    assert np.array_equal(found_dx, dx[0][0].permute(1, 2, 0).numpy())
    expected = input_channels_first(dw[0].numpy(), depthwise, groups)
    assert np.array_equal(found_dw.reshape(expected.shape), expected)
