# SPDX-License-Identifier: Apache-2.0
"""What kernels work in, in bytes: as much as they can use. No plan needs it; they manage with less.

Which family a target has is no fact of a plan: what a plan leaves free is the most that any family can use.
"""

from __future__ import annotations

from medyate.ledger import align

BAND = 4
"""Rows that a kernel makes at once where it may: blocks of pixels then go on from one row to the next."""
KERNEL_SHARE = 1024
"""What a kernel is left of a workspace that sums of weight gradients go to: layer.c has the same."""


# Of the family dsp, and what the family mve takes of it.


def block_bytes(taps: int, *, gathered: bool) -> int:
    """What a dense kernel works in: the widened taps of four pixels, and one pixel's own where they are gathered."""
    return 32 * -(-taps // 4) + (taps if gathered else 0)


def ring_bytes(kernel: tuple[int, int], stride: tuple[int, int], rows: int, width: int) -> int:
    """What a depthwise kernel works in: four channels' rows for `rows` of `width` outputs, turned, and one filter."""
    words = kernel[1] // 2 + 1
    row = (align(width, 4) * stride[1] + 1) // 2 + words
    return 4 * (4 * (kernel[0] + (rows - 1) * stride[0]) * row + 2 * kernel[0] * words)


def gradient_block_bytes(outputs: int) -> int:
    """What a dense kernel works in for the gradient of its input: that of four pixels, and sums of eight channels."""
    return 4 * (outputs // 4 * 8 + outputs % 4 * 4 + 8 * 4 + 4)


def gradient_ring_bytes(kernel: tuple[int, int], stride: tuple[int, int], rows: int, width: int) -> int:
    """The same of a depthwise kernel: four channels' gradients for `rows` of the input, turned, filters and sums."""
    words, pitch = kernel[1] // 2 + 1, align(width, 4)
    turned = 4 * ((rows + kernel[0] - 2) // stride[0] + 1) * (pitch // 2 + words)
    return 4 * (turned + 4 * (2 * kernel[0] * words + pitch))


# Of the family mve.

WINDOWS = 16
"""Windows of a dense kernel that are copied before they are multiplied: kernels/mve/conv2d_kernels.c has the same."""
VECTOR = 16
"""Bytes of a vector."""


def window_bytes(taps: int, outputs: int, pixels: int) -> int:
    """What a dense kernel works in that makes so many pixels in a call: sums of weights, and the windows of some."""
    return 4 * outputs + taps * min(pixels, WINDOWS)


def pixel_bytes(kernel: tuple[int, int], stride: tuple[int, int], rows: int, width: int) -> int:
    """What a depthwise kernel works in: a vector for each pixel that `rows` of `width` outputs read, and filters."""
    columns = (width - 1) * stride[1] + kernel[1]
    return VECTOR * (((rows - 1) * stride[0] + kernel[0]) * columns + kernel[0] * kernel[1])
