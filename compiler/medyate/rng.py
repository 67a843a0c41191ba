# SPDX-License-Identifier: Apache-2.0
"""The counter-based generator of runtime_c/include/mdy/rng.h, bit for bit.

>>> hex(key(1, 2, 3, 4)), hex(draw(key(1, 2, 3, 4), 0))
('0xc4ee5f75', '0xb764179b')
"""

from __future__ import annotations

MASK = 0xFFFFFFFF
ROUNDING, SAMPLER, FLIP, HEAD, ORDER, COLUMNS, BATCH, BIASES, SHIFT = 1, 2, 3, 4, 5, 6, 7, 8, 9
"""What numbers are for; part of the key, so that no two uses share a stream."""


def mix(x: int) -> int:
    """A bijective mixer of 32 bits."""
    x &= MASK
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ (x >> 16)


def key(seed: int, purpose: int, step: int, stream: int) -> int:
    """The key of one stream of numbers."""
    state = mix(seed + 0x9E3779B9)
    state = mix(state ^ (purpose * 0x85EBCA6B & MASK))
    state = mix(state ^ step)
    return mix(state ^ (stream * 0xC2B2AE35 & MASK))


def draw(stream_key: int, index: int) -> int:
    """The index-th number of a key, uniform in 32 bits."""
    return mix(stream_key + index * 0x9E3779B9)
