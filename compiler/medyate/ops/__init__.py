# SPDX-License-Identifier: Apache-2.0
"""Every operation that the compiler knows: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from medyate.ops.activation import ACTIVATION
from medyate.ops.add import ADD
from medyate.ops.average_pool import AVERAGE_POOL
from medyate.ops.before_quantisation import BATCH_NORM
from medyate.ops.concat import CONCAT
from medyate.ops.conv2d import CONV2D
from medyate.ops.depthwise import DEPTHWISE
from medyate.ops.max_pool import MAX_POOL
from medyate.ops.move import MOVE
from medyate.ops.mul import MUL
from medyate.ops.offset import OFFSET
from medyate.ops.opdef import OpDef
from medyate.ops.prelu import PRELU
from medyate.ops.reshape import RESHAPE
from medyate.ops.softmax import SOFTMAX

OPS: Mapping[str, OpDef] = {
    op.name: op
    for op in (
        CONV2D,
        DEPTHWISE,
        ADD,
        MUL,
        OFFSET,
        AVERAGE_POOL,
        MAX_POOL,
        ACTIVATION,
        PRELU,
        CONCAT,
        MOVE,
        RESHAPE,
        SOFTMAX,
        BATCH_NORM,
    )
}
