# SPDX-License-Identifier: Apache-2.0
"""How the device turns gradients into updates: the program's table, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optimizer:
    """One implementation of runtime_c/include/mdy/update.h."""

    table: str
    """Its mdy_optimizer_t."""
    header: str
    single_bytes: int
    """Kept for each selected weight over an epoch, beside its delta, where an update is of one sample."""
    batch_bytes: int
    """The same where it is of several."""

    def kept_bytes(self, samples: int) -> int:
        """For each weight, where an update is of so many samples."""
        return self.single_bytes if samples == 1 else self.batch_bytes


SGD = Optimizer("mdy_sgd", "mdy/sgd.h", single_bytes=0, batch_bytes=2)
"""Stochastic rounding on int8 weights; in batches the mean gradient so far is an int16."""
