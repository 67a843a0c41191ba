# SPDX-License-Identifier: Apache-2.0
"""What a device has learned, read back from a bank image or over the link. Format: SPEC.md, sections 3 and 5."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import ArtefactError
from medyate.ir import QGraph, Weights, elements
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES, StateFacts
from medyate.plan.banks import Bank, place_banks
from medyate.plan.selecting import Selecting

MAGIC = 0x4259444D
FORMAT = 5
READABLE = (4, 5)
"""Formats whose generations can be exported; format 4 has its settings in the header."""
WORDS = 16
TRAIN_FIRST = "Run `medyate run` to the end of an epoch first."


@dataclass(frozen=True)
class Facts:
    """What a compiled model's banks hold."""

    digest: int
    state: StateFacts
    layers: tuple[tuple[str, int, tuple[int, ...]], ...]
    """(candidate layer, offset of its weights, their shape)."""
    biases: tuple[tuple[str, int, int], ...]
    """(layer whose biases are trained, number of its first one, their count)."""
    runs: tuple[tuple[int, int], ...]
    """(count, bytes) of the sectors reserved for the banks."""

    @staticmethod
    def of(plan: Mapping[str, Any], model: Mapping[str, Any], qgraph: QGraph, weights: Weights) -> Facts:
        """From the artefacts of `compile`."""
        entries = plan["candidates"]
        shapes = {e["layer"]: np.shape(weights[f"{e['layer']}.weight"]) for e in entries}
        features = elements(qgraph.graph.shapes[qgraph.graph.output])
        channels = sum(int(e["channels"]) for e in entries)
        state = StateFacts(
            classes=int(plan["classes"]),
            features=features,
            channels=channels,
            slots=int(plan["gradient_slots"]),
            candidates=len(entries),
            norms=Selecting(plan["selection"]).norms(channels),
            columns=int(plan["head_columns"]),
            biases=sum(int(entry["count"]) for entry in plan["biases"]),
        )
        layers = tuple((e["layer"], int(e["bank_offset"]), shapes[e["layer"]]) for e in entries)
        runs = tuple((int(count), int(size)) for count, size in model["flash_runs"])
        biases = tuple((e["layer"], int(e["first"]), int(e["count"])) for e in plan["biases"])
        return Facts(int(model["digest"]), state, layers, biases, runs)

    @property
    def weight_bytes(self) -> int:
        """Weights of a sampled head and of all candidates."""
        return self.state.bank_head_bytes + sum(int(np.prod(shape)) for _, _, shape in self.layers)

    @property
    def banks(self) -> tuple[Bank, Bank]:
        """Where they lie in the flash reserved for them."""
        return place_banks(self.runs, BANK_BODY_BYTES + self.state.saved_bytes + self.weight_bytes)

    @property
    def places(self) -> tuple[Bank, ...]:
        """Where banks of any readable format lie; those of this one come last."""
        return *place_banks(self.runs, self.state.saved_bytes + self.weight_bytes), *self.banks


@dataclass(frozen=True)
class Generation:
    """One generation's head and weights."""

    number: int
    epochs: int
    head_weight: NDArray[np.int16]
    """(classes, features), steps of 2^-12."""
    head_bias: NDArray[np.int32]
    """(classes,), Q16."""
    weights: Mapping[str, NDArray[np.int8]]
    """Of every candidate layer; empty before the first commit."""
    biases: Mapping[str, NDArray[np.int32]]
    """Of every layer whose biases are trained."""


def parse(facts: Facts, number: int, epochs: int, state: bytes, weights: bytes) -> Generation:
    """The arrays of a generation. Raises ArtefactError when their sizes are not the model's."""
    sampled = facts.state.columns > 0
    sizes = (facts.weight_bytes,) if sampled else (0, facts.weight_bytes)
    if len(state) != facts.state.saved_bytes or len(weights) not in sizes:
        raise ArtefactError("the generation is of another model.", "Use the folder that the run was compiled in.")
    classes, features = facts.state.classes, facts.state.features
    head = np.frombuffer(weights if sampled else state, "<i2", classes * features).reshape(classes, features)
    bias = np.frombuffer(state, "<i4", classes, facts.state.array("head_bias").offset)
    layers = {
        name: np.frombuffer(weights, np.int8, int(np.prod(shape)), offset).reshape(shape)
        for name, offset, shape in (facts.layers if weights else ())
    }
    trained = np.frombuffer(state, "<i4", facts.state.biases, facts.state.array("biases").offset)
    biases = {name: trained[first : first + count].astype(np.int32) for name, first, count in facts.biases}
    return Generation(number, epochs, head.astype(np.int16), bias.astype(np.int32), layers, biases)


def read_bank(facts: Facts, bank: bytes) -> Generation | None:
    """The generation that begins a bank's bytes, or None without a whole one. Raises ArtefactError for a stranger's."""
    if len(bank) < BANK_HEADER_BYTES:
        return None
    header = struct.unpack(f"<{WORDS}I", bank[:BANK_HEADER_BYTES])
    if header[0] != MAGIC or header[15] != zlib.crc32(bank[: BANK_HEADER_BYTES - 4]):
        return None
    if header[1] not in READABLE:
        formats = " or ".join(map(str, READABLE))
        raise ArtefactError(f"the flash holds a generation of format {header[1]}, not {formats}.", TRAIN_FIRST)
    body = header[7] if header[1] == FORMAT else 0
    saved = facts.state.saved_bytes
    if header[3] != facts.digest or header[4] != body + saved + facts.weight_bytes:
        raise ArtefactError("the flash holds another model's generations.", TRAIN_FIRST)
    payload = bank[BANK_HEADER_BYTES : BANK_HEADER_BYTES + header[4]]
    if zlib.crc32(payload) != header[5]:
        return None
    return parse(facts, header[2], header[6], payload[body : body + saved], payload[body + saved :])


def newest(facts: Facts, flash: bytes) -> Generation:
    """The newest usable generation of a bank image. Raises ArtefactError when there is none."""
    return newest_of(facts, [flash[address : address + size] for address, size in facts.places])


def newest_of(facts: Facts, banks: Sequence[bytes]) -> Generation:
    """The newest usable generation of some banks. Raises ArtefactError when there is none."""
    found: list[Generation] = []
    stranger: ArtefactError | None = None
    for bank in banks:
        try:
            generation = read_bank(facts, bank)
        except ArtefactError as error:
            stranger = error
            continue
        found += [] if generation is None else [generation]
    if not found:
        raise stranger or ArtefactError("the flash holds no usable generation.", TRAIN_FIRST)
    first = found[0]
    for other in found[1:]:
        first = other if is_later(other.number, first.number) else first
    return first


def is_later(number: int, than: int) -> bool:
    """The order of generations, whose numbers wrap around."""
    return (number - than) % 2**32 < 2**31
