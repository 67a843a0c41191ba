# SPDX-License-Identifier: Apache-2.0
"""Every operation that the compiler knows: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from medyate.ops.add import ADD
from medyate.ops.before_quantisation import BATCH_NORM, CLIP, SOFTMAX
from medyate.ops.conv2d import CONV2D
from medyate.ops.depthwise import DEPTHWISE
from medyate.ops.opdef import OpDef
from medyate.ops.pool import AVERAGE_POOL
from medyate.ops.shortcut import SHORTCUT

OPS: Mapping[str, OpDef] = {
    op.name: op
    for op in (
        CONV2D,
        DEPTHWISE,
        ADD,
        AVERAGE_POOL,
        SHORTCUT,
        CLIP,
        BATCH_NORM,
        SOFTMAX,
    )
}
