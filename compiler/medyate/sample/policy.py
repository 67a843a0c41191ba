# SPDX-License-Identifier: Apache-2.0
"""The channel sampler of runtime_c/src/sampler.c, draw for draw.

Channels are drawn one after the other without replacement, each with probability N / sum(N) over the
channels that are not yet taken and whose record still fits, until none fits.
Source: MeDyate, arXiv 2510.20979, algorithm 1; DESIGN.md, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medyate import rng

MANTISSA_BITS = 11

SQUARES, SUM, LAST = "squares", "sum", "last"
NORMS = (SQUARES, SUM, LAST)
"""What is observed of a channel's gradients in an epoch: the root of the summed squares of all steps, as on the device;
the norm of their sum; the norm of the last step's."""
SKIP, STOP = "skip", "stop"
FITS = (SKIP, STOP)
"""What becomes of a drawn channel that does not fit: others are drawn, as on the device, or it ends the drawing."""


def pack(norm: int) -> int:
    """A norm in 16 bits: 11 leading bits, rounded down, and an exponent."""
    exponent = max(0, norm.bit_length() - MANTISSA_BITS)
    return exponent << MANTISSA_BITS | norm >> exponent


def unpack(code: int) -> int:
    """What a packed norm counts as."""
    return (code & (1 << MANTISSA_BITS) - 1) << (code >> MANTISSA_BITS)


def draw_selection(
    norms: Sequence[int], costs: Sequence[int], budget: int, seed: int, epoch: int, fit: str = SKIP
) -> tuple[int, ...]:
    """Indices of the selected channels, ascending.

    `norms` and `costs` have one entry per candidate channel; a norm of 0 excludes the channel.
    """
    key = rng.key(seed, rng.SAMPLER, epoch, 0)
    exact = np.int64 if sum(map(int, norms)) < 1 << 63 else object
    weight = np.array(norms, np.uint64).astype(exact)
    cost = np.array(costs, np.int64)
    taken = np.zeros(len(weight), bool)
    left = budget
    draw = 0
    while True:
        open_ = np.flatnonzero(~taken & (cost <= left if fit == SKIP else True))
        totals = np.cumsum(weight[open_]) if len(open_) else np.array([], np.int64)
        total = int(totals[-1]) if len(totals) else 0
        if total == 0:
            return tuple(int(i) for i in np.flatnonzero(taken))
        random = rng.draw(key, 2 * draw) << 32 | rng.draw(key, 2 * draw + 1)
        point = random * total >> 64
        chosen = open_[int(np.searchsorted(totals, point, side="right"))]
        if cost[chosen] > left:
            return tuple(int(i) for i in np.flatnonzero(taken))
        taken[chosen] = True
        left -= int(cost[chosen])
        draw += 1


def observe(norms: Sequence[int], seen: dict[int, int], *, first_epoch: bool) -> list[int]:
    """N after an epoch: what was seen, as 16 bits keep it, and after the first epoch the largest for all others."""
    seen = {channel: unpack(pack(norm)) for channel, norm in seen.items()}
    largest = max([1, *seen.values()])
    others = [largest if first_epoch and norm != 0 else norm for norm in norms]
    return [max(1, seen[i]) if i in seen and norm != 0 else norm for i, norm in enumerate(others)]
