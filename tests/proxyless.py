# SPDX-License-Identifier: Apache-2.0
"""ProxylessNAS-w0.3 at 128 x 128 as costs alone: its checkpoint is not among the shared files.

Rows: input, hidden and output channels, window, stride and input extent of each inverted bottleneck; the first has no
expansion. Behind them the papers' network has one more convolution, 1 x 1 from 96 to 384 channels.
"""

from __future__ import annotations

from medyate.ledger import ChannelCost
from medyate.rank.lara import LayerScore

BLOCKS = (
    (16, 16, 8, 3, 1, 64),
    (8, 24, 16, 5, 2, 64),
    (16, 48, 16, 3, 1, 32),
    (16, 48, 16, 7, 2, 32),
    (16, 48, 16, 3, 1, 16),
    (16, 48, 16, 5, 1, 16),
    (16, 48, 16, 5, 1, 16),
    (16, 96, 24, 7, 2, 16),
    (24, 72, 24, 5, 1, 8),
    (24, 72, 24, 5, 1, 8),
    (24, 72, 24, 5, 1, 8),
    (24, 144, 32, 5, 1, 8),
    (32, 96, 32, 5, 1, 8),
    (32, 96, 32, 5, 1, 8),
    (32, 96, 32, 5, 1, 8),
    (32, 192, 64, 7, 2, 8),
    (64, 384, 64, 7, 1, 4),
    (64, 192, 64, 7, 1, 4),
    (64, 192, 64, 7, 1, 4),
    (64, 384, 96, 7, 1, 4),
)


def _layers() -> tuple[LayerScore, ...]:
    found = [LayerScore("first", 0.0, 0.0, 3, ChannelCost(16 * 9, 128 * 128))]
    for i, (source, hidden, output, kernel, stride, extent) in enumerate(BLOCKS):
        inner, outer = extent**2, (extent // stride) ** 2
        if i:
            found.append(LayerScore(f"b{i}.pointwise1", 0.0, 0.0, source, ChannelCost(hidden, inner)))
        found.append(LayerScore(f"b{i}.depthwise", 0.0, 0.0, hidden, ChannelCost(kernel**2, inner)))
        found.append(LayerScore(f"b{i}.pointwise2", 0.0, 0.0, hidden, ChannelCost(output, outer)))
    return tuple(found)


PROXYLESS = _layers()
