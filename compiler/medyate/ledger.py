# SPDX-License-Identifier: Apache-2.0
"""Facts to bytes: the one place where memory is counted, for ranking, planner, device and report.

Elements follow MeDyate (arXiv 2510.20979, eq. 4): one input channel costs C_W + C_A, its weights and
its saved input map, for one sample. Bytes add what a device really keeps (DESIGN.md, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from medyate.ir import Shape, elements
from medyate.optimizer import Optimizer

RECORD_HEAD_BYTES = 10
"""Sum of squared gradients (8) and channel number (2) of one selected channel."""

TILE_PIXELS = 4
"""Pixels of a row that a layer with deltas computes at once: MDY_TILE of the runtime."""


STATIC_BYTES = 1664
"""Reserved for .data and .bss without the arena: runtime state, link buffers; checked after the build."""

STACK_BYTES = 2048
"""Reserved stack; the deepest use is measured on the target."""


BANK_HEADER_BYTES = 64
"""Of a generation in flash."""

BANK_BODY_BYTES = 44
"""Of the settings in front of its state: MDY_STORE_BODY_BYTES of the runtime."""


def align(count: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-count // to) * to


@dataclass(frozen=True, slots=True)
class ChannelCost:
    """What one selected input channel of a layer costs."""

    weights: int
    """C_W: weights that read this channel."""
    activations: int
    """C_A: elements of its input map."""
    kept: int = 0
    """Bytes that the optimiser keeps for each weight."""

    @property
    def elements(self) -> int:
        """The papers' memory slots, eq. 4."""
        return self.weights + self.activations

    @property
    def record_bytes(self) -> int:
        """Bytes of its record in the epoch region: bookkeeping, int8 delta, int8 map, the optimiser's part."""
        return align(RECORD_HEAD_BYTES + self.weights + self.activations, 4) + align(self.kept * self.weights, 4)

    def trained_by(self, optimizer: Optimizer, samples: int) -> ChannelCost:
        """Where one update is of so many samples."""
        return replace(self, kept=optimizer.kept_bytes(samples))


def tensor_bytes(shape: Shape) -> int:
    """An int8 tensor."""
    return elements(shape)


def gradient_bytes(shape: Shape, grad_bits: int) -> int:
    """A stored gradient."""
    return elements(shape) * grad_bits // 8


def mask_bytes(shape: Shape) -> int:
    """A clamp mask: one bit per element, every row begins at a byte."""
    return shape[0] * -(-shape[1] * shape[2] // 8)


def correction_bytes(out_shape: Shape) -> int:
    """acc_init of a tile of a candidate layer's output row: int32."""
    return 4 * min(out_shape[1], TILE_PIXELS) * out_shape[2]


def input_scratch_bytes(in_shape: Shape, out_shape: Shape) -> int:
    """Scratch of a layer's input gradient: int32 per input channel and int16 per output."""
    return 4 * in_shape[2] + 2 * out_shape[2]


def tap_bytes(out_shape: Shape, grad_bits: int) -> int:
    """Scratch of a layer's update: one sum per output channel."""
    return sum_bytes(grad_bits) * out_shape[2]


def sum_bytes(grad_bits: int) -> int:
    """A weight gradient, summed over pixels."""
    return 8 if grad_bits == 16 else 4


OPTIONAL_STATE = ("head_index", "held_dlogits", "held_features", "weights")
"""Arrays that a model need not have; of the others, some have 0 bytes."""


@dataclass(frozen=True, slots=True)
class StateArray:
    """One array of the state region."""

    name: str
    """A field of mdy_state_t."""
    offset: int
    """A multiple of 4."""
    bytes: int
    saved: bool
    """Part of a generation; these come first."""


@dataclass(frozen=True, kw_only=True)
class StateFacts:
    """What the sizes of the state region follow from."""

    classes: int = 0
    features: int = 0
    channels: int = 0
    slots: int = 0
    candidates: int = 0
    norms: int = 0
    """Channels whose norms are kept: all of them, or none where they never change."""
    columns: int = 0
    """Features whose head weights are in RAM in an epoch; 0: all of them, which are then saved from there."""
    ram_weights: int = 0
    """Bytes of candidate weights that live in RAM instead of flash."""
    batch: int = 1
    """Samples of one update; the head's inputs and gradients of each are held until then."""
    biases: int = 0
    """Biases of the backbone that are trained."""

    @property
    def bank_head_bytes(self) -> int:
        """Of a sampled head's weights in a bank, in front of the candidates'."""
        return align(2 * self.classes * self.features, 4) if self.columns else 0

    @cached_property
    def arrays(self) -> tuple[StateArray, ...]:
        """The table of the region: generated code, banks and exports take their places from here."""
        head = 2 * self.classes * (self.columns or self.features)
        held = self.batch if self.batch > 1 else 0
        sizes = (
            *(() if self.columns else (("head_weight", head, True),)),
            ("head_bias", 4 * self.classes, True),
            ("norms", 2 * self.norms, True),
            ("slot_r", 2 * self.slots, True),
            ("selection", -(-self.channels // 8), True),
            ("biases", 4 * self.biases, True),
            ("slot_e", 2 * self.slots, False),
            ("first", 4 * self.candidates, False),
            ("count", 2 * self.candidates, False),
            *((("head_index", 2 * self.columns, False), ("head_weight", head, False)) if self.columns else ()),
            *(
                (name, count, False)
                for name, count in (
                    ("held_dlogits", 2 * self.classes * held),
                    ("held_features", self.features * held),
                    ("weights", self.ram_weights),
                )
                if count
            ),
        )
        found, offset = [], 0
        for name, count, saved in sizes:
            found.append(StateArray(name, offset, count, saved))
            offset += align(count, 4)
        return tuple(found)

    def array(self, name: str) -> StateArray:
        """The array of that name."""
        return next(array for array in self.arrays if array.name == name)

    @property
    def saved_bytes(self) -> int:
        """Part of a generation."""
        return sum(align(array.bytes, 4) for array in self.arrays if array.saved)

    @property
    def bytes(self) -> int:
        """The whole region."""
        return sum(align(array.bytes, 4) for array in self.arrays)


def arena_bytes(planned: int, epoch: int, state: int) -> int:
    """The caller's arena: the first two regions are rounded up to 8 bytes."""
    return align(planned, 8) + align(epoch, 8) + state
