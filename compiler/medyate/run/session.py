# SPDX-License-Identifier: Apache-2.0
"""The device's commands as methods. Formats: SPEC.md, section 4."""

from __future__ import annotations

import contextlib
import hmac
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import mantissa15
from medyate.errors import LinkError
from medyate.plan.parameters import NORM_BITS
from medyate.recipe import CLIP, SHIFT_MAX
from medyate.run.link import READ_BYTES, STATUS, Link, RefusedError, RestartedError
from medyate.sample.policy import pack, unpack

(HELLO, BEGIN, DATA, TRAIN, INFER, COMMIT, READ, DIGESTS, MARKS, FORCE, ROLL_BACK, RESET, EXIT, TARGET, CHALLENGE) = (
    range(1, 16)
)
LOGITS, NORMS, SELECTION, EXPONENTS, STATE, WEIGHTS, OUTPUT, BANK, RESERVED = range(9)
CLOSED, OPEN, KEYED = range(3)
LEARNED = (STATE, WEIGHTS, BANK, RESERVED)
"""Arrays that are guarded."""
TAG_BYTES = 16
NO_LABEL = 0xFFFF
PATTERN = 0xA5
"""What memory is painted with."""
ARGUMENT, FLASH_REFUSED, OTHER_MODEL, DAMAGED, DENIED = 1, 4, 6, 10, 12
"""Statuses."""
WIPE = 1
"""Flag of RESET."""
NO_SECTOR = 0xFFFFFFFF

BANK_STATES = ("empty", "usable", "unfinished", "damaged", "other model", "other format")
STRANGER = {
    "other model": "bank {bank} holds generation {number} of another model (digest 0x{origin:08x})",
    "other format": "bank {bank} holds generation {number} in format {origin} of the banks",
}
ODD = {
    "unfinished": "the commit to bank {bank} was not finished",
    "damaged": "bank {bank} was damaged",
    **STRANGER,
}
HELLO_FIELDS = struct.Struct("<13I")
POSITION = struct.Struct("<6Ii5I9II")
RESULT = struct.Struct("<4I")
DIGEST_FIELDS = struct.Struct("<5I")
MARK_FIELDS = struct.Struct("<6I")
SECTOR = struct.Struct("<I")
EXIT_SECONDS = 1.0
MOST_BYTES = 1 << 24
"""Of a sample, or of an array on a target."""


@dataclass(frozen=True)
class Hello:
    """What the target says of itself."""

    abi: int
    digest: int
    input_bytes: int
    classes: int
    channels: int
    candidates: int
    instructions_per_tick: int
    gradient_bits: int
    flash_bytes: int
    loss: int
    """0: cross-entropy, 1: squared error."""
    by_rows: int
    """1: there is no place for a whole sample; its pieces follow the request that uses them."""
    access: int
    """To what is guarded: CLOSED, OPEN or KEYED."""
    ticks_per_second: int
    """0: ticks are no time."""


@dataclass(frozen=True)
class Settings:
    """Seed, learning-rate schedule and changes of samples as the device keeps them."""

    seed: int
    rate_mult: int
    rate_exponent: int
    cosine: int
    warmup_steps: int
    total_steps: int
    clip: int
    """Packed norm; 0: none."""
    flags: int
    """Bit 0 head only, 1 flips, 3 to 7 the shift, 8 to 15 the smoothing in 1/256."""

    @property
    def rate(self) -> float:
        """The peak rate as a number."""
        return math.ldexp(self.rate_mult, self.rate_exponent)

    @property
    def flip(self) -> bool:
        """Whether samples are mirrored at random."""
        return bool(self.flags >> 1 & 1)

    @property
    def shift(self) -> int:
        """By how many pixels they are moved at most."""
        return self.flags >> 3 & SHIFT_MAX

    @property
    def smoothing(self) -> float:
        """Of labels."""
        return (self.flags >> 8) / 256

    @property
    def clip_norm(self) -> float:
        """The clip as a number."""
        return math.ldexp(unpack(self.clip), -NORM_BITS)


@dataclass(frozen=True)
class Found:
    """What a bank held at the start."""

    state: str
    """One of BANK_STATES."""
    generation: int
    origin: int
    """Digest of the model or, of another format, the number of that."""
    erases: int
    """How often the bank has been erased by now, as far as its headers tell."""


@dataclass(frozen=True)
class Position:
    """Where the training stands."""

    generation: int
    epochs: int
    steps: int
    epoch_step: int
    settings: Settings
    """In force on the device: a resumed training brings its own."""
    bank: int
    """In use; without a generation, the one that the next commit leaves alone."""
    found: tuple[Found, Found]
    fault: int = NO_SECTOR
    """Reserved sector, from 0, that refused for good in the last commit."""

    @property
    def is_used(self) -> bool:
        """Whether a generation was found and loaded."""
        return any(found.state == "usable" for found in self.found)

    def start(self) -> str:
        """What a start that was not fresh made of the banks, in one sentence."""
        states = [found.state for found in self.found]
        notes = self._notes(ODD)
        if states == ["damaged", "damaged"]:
            notes = ["both banks were damaged"]
        elif states == ["empty", "empty"]:
            notes = ["the flash holds no generation"]
        used = f"generation {self.generation} of bank {self.bank} is used"
        return "; ".join([*notes, used if self.is_used else "training starts from the factory weights"])

    def strangers(self) -> str:
        """Generations that this image cannot use; empty without one."""
        return " and ".join(self._notes(STRANGER))

    def _notes(self, texts: Mapping[str, str]) -> list[str]:
        banks = [(bank, found) for bank, found in enumerate(self.found) if found.state in texts]
        return [texts[f.state].format(bank=bank, number=f.generation, origin=f.origin) for bank, f in banks]


@dataclass(frozen=True)
class Result:
    """What one sample gave; loss in nats, or mean squared error."""

    loss: float
    prediction: int
    instructions: int
    """0: not counted."""
    milliseconds: float
    """By the target's clock, without its link; 0: not timed."""
    saturations: int


@dataclass(frozen=True)
class Digests:
    """CRC-32 of losses and logits, selections, deltas, state, flash banks."""

    losses: int
    selections: int
    deltas: int
    state: int
    flash: int

    def __str__(self) -> str:
        return "-".join(f"{v:08x}" for v in (self.losses, self.selections, self.deltas, self.state, self.flash))


@dataclass(frozen=True)
class Marks:
    """High-water marks of the regions, stack and static bytes."""

    planned: int
    epoch: int
    state: int
    stack: int
    static: int
    link: int


@dataclass(frozen=True)
class Training:
    """Hyper-parameters of one training."""

    rate: float
    epochs: int
    epoch_samples: int
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    seed: int = 0
    head_only: bool = False
    flip: bool = False
    """Samples are mirrored at random."""
    shift: int = 0
    """And moved by up to so many pixels."""
    smoothing: float = 0.0
    """Share of a label that goes to all classes alike; kept in 1/256."""
    fresh: bool = True
    clip: float = CLIP
    """Largest norm of a layer's gradient in a step; 0: any."""

    def settings(self) -> Settings:
        """What the device is asked to keep."""
        mult, exponent = mantissa15(self.rate)
        total = self.epochs * self.epoch_samples
        warmup = math.floor(self.warmup_epochs * self.epoch_samples) if self.epochs > 1 else 0
        cosine = int(self.schedule == "cosine")
        flags = self.head_only | self.flip << 1 | self.shift << 3 | round(self.smoothing * 256) << 8
        clip = pack(round(self.clip * 2**NORM_BITS))
        return Settings(self.seed & 0xFFFFFFFF, mult, exponent, cosine, warmup, total, clip, flags)

    def fields(self, pattern: int) -> bytes:
        """The BEGIN request."""
        s = self.settings()
        schedule = (s.rate_mult, s.rate_exponent, s.cosine, s.warmup_steps, s.total_steps, s.clip)
        flags, shift, smoothing = s.flags & 3 | self.fresh << 2, s.shift, s.flags >> 8
        return struct.pack("<IIiIIIHBBBB", s.seed, *schedule, flags, pattern, shift, smoothing)


SELF_TEST = Training(0.02, 4, 16, "constant", seed=0x5E1F7E57, flip=True)
"""That of `medyate selftest`. A generation with these settings is nobody's training."""


def _impossible(what: str) -> LinkError:
    return LinkError(f"the target's answer makes no sense: {what}.", "Flash the image that was just compiled.")


def _unpack(layout: struct.Struct, reply: bytes, what: str) -> tuple[int, ...]:
    """The fields of a reply. Raises LinkError when it is shorter or longer."""
    if len(reply) != layout.size:
        raise _impossible(f"{len(reply)} B of {what}, not {layout.size}")
    return layout.unpack(reply)


def _position(reply: bytes) -> Position:
    words = _unpack(POSITION, reply, "a position")
    generation, epochs, steps, epoch_step = words[:4]
    settings = Settings(*words[4:12])
    if abs(settings.rate_exponent) > 1000 or settings.clip > 0xFFFF or words[12] > 1:
        raise _impossible("settings or bank of a position")
    if max(words[13], words[17]) >= len(BANK_STATES):
        raise _impossible("the state of a bank")
    first, second = (Found(BANK_STATES[words[at]], *words[at + 1 : at + 4]) for at in (13, 17))
    return Position(generation, epochs, steps, epoch_step, settings, words[12], (first, second), words[21])


def _refused(error: RefusedError, sector: int) -> LinkError:
    """The same, with the sector at fault."""
    if sector == NO_SECTOR:
        return error
    return LinkError(
        f"the flash refused twice: sector {sector} of those reserved for the banks, counted from 0.",
        "The generation before is still valid. If the sector fails again, reserve others.",
    )


class Session:
    """A connected target."""

    position: Position
    """After the last BEGIN or COMMIT."""

    hello: Hello

    def __init__(self, link: Link, key: bytes | None = None) -> None:
        """`key`: that which the image was compiled with."""
        self.link = link
        self._key = key
        self.greet()

    def greet(self) -> None:
        """Opens a session on the link: the first, or one after a restart. Raises LinkError."""
        self.hello = Hello(*_unpack(HELLO_FIELDS, self.link.open(HELLO), "HELLO"))
        if not 0 < self.hello.input_bytes <= MOST_BYTES or self.hello.by_rows > 1 or self.hello.access > KEYED:
            raise _impossible(f"a sample of {self.hello.input_bytes} B")

    def guarded(self, command: int, fields: bytes = b"", *, work: str = "", patience: float | None = None) -> bytes:
        """The reply of a request that not everybody may make. Raises LinkError when this host may not."""
        key = self.check_access()
        if key is None:
            return self.link.request(command, fields, work=work, patience=patience)
        nonce = self.link.request(CHALLENGE, patience=patience)
        try:
            return self.link.request(
                command,
                fields,
                work=work,
                patience=patience,
                seal=lambda body: hmac.digest(key, nonce + body, "sha256")[:TAG_BYTES],
            )
        except RefusedError as error:
            if error.status != DENIED:
                raise
            raise LinkError("the image was compiled with another key.", "Give that one with --link-key.") from error

    def check_access(self) -> bytes | None:
        """The key for what is guarded; None: it is open. Raises LinkError where this host may not."""
        if self.hello.access == OPEN:
            return None
        if self.hello.access == CLOSED:
            raise LinkError(
                "the image lets nobody end it, reset it or read what it learned.",
                "Compile it with --link-key, or build it with MDY_LINK_OPEN=1: docs/SECURITY.md.",
            )
        if self._key is None:
            raise LinkError("the image asks for the key that it was compiled with.", "Give it with --link-key.")
        return self._key

    def begin(self, training: Training, pattern: int = PATTERN) -> Position:
        """Paints memory, starts or resumes. Raises LinkError when the flash is another model's."""
        try:
            self.position = _position(self._begun(training.fields(pattern)))
        except RefusedError as error:
            held = _position(error.fields).strangers() if error.status == OTHER_MODEL and error.fields else ""
            if not held:
                raise
            raise LinkError(
                f"the flash is another model's: {held}; the image is 0x{self.hello.digest:08x}.",
                "Discard it with --fresh, or run the image that trained it.",
            ) from error
        return self.position

    def _begun(self, fields: bytes) -> bytes:
        """The reply; a target that restarted since it was greeted has nothing to lose."""
        try:
            return self.link.request(BEGIN, fields, work="begin")
        except RestartedError:
            self.greet()
            return self.link.request(BEGIN, fields, work="begin")

    def begin_inference(self) -> None:
        """Starts from the factory weights; nothing is trained."""
        self.begin(Training(rate=0.001, epochs=1, epoch_samples=1))

    def _use(self, command: int, sample: NDArray[np.int8], label: Any) -> Result:
        """Sends a sample and the request that uses it; by rows, the request goes ahead of the pieces."""
        data = sample.tobytes()
        if len(data) != self.hello.input_bytes:
            raise LinkError(
                f"a sample of {len(data)} B was given to a model that takes {self.hello.input_bytes} B.",
                "Use the data that the model was compiled for.",
            )
        if not self.hello.by_rows:
            self.link.stream(DATA, data)
            return self._result(self.link.request(command, self._label(label), work="step"))
        self.link.request(command, self._label(label), work="row")
        at, reply = 0, b""
        while at < len(data):
            piece = data[at : at + self.link.piece]
            is_last = at + len(piece) == len(data)
            reply = self.link.request(DATA, struct.pack("<I", at) + piece, work="step" if is_last else "row")
            at += len(piece)
        return self._result(reply)

    def _result(self, reply: bytes) -> Result:
        loss, prediction, ticks, saturations = _unpack(RESULT, reply, "a result")
        if 0 < self.hello.classes <= prediction:  # without a head: the position of the largest output
            raise _impossible(f"class {prediction} of {self.hello.classes}")
        rate = self.hello.ticks_per_second
        milliseconds = 1000 * ticks / rate if rate else 0.0
        return Result(loss / 65536, prediction, ticks * self.hello.instructions_per_tick, milliseconds, saturations)

    def _label(self, label: Any) -> bytes:
        """The label's field; a vector of targets goes ahead, in Q16."""
        if np.ndim(label) == 0:
            return struct.pack("<H", int(label))
        words = np.clip(np.round(np.asarray(label, np.float64) * 65536), -(2**31), 2**31 - 1).astype("<i4")
        step = self.link.piece // 4
        for first in range(0, len(words), step):
            part = words[first : first + step]
            self.link.request(TARGET, struct.pack("<I", first) + part.tobytes())
        return struct.pack("<H", 0)

    def train(self, sample: NDArray[np.int8], label: Any) -> Result:
        """One training step on a label, or on a vector of targets."""
        return self._use(TRAIN, sample, label)

    def infer(self, sample: NDArray[np.int8], label: Any = NO_LABEL) -> Result:
        """One inference; the loss is that of the label or of the targets."""
        return self._use(INFER, sample, label)

    def commit(self) -> Position:
        """Ends the epoch. Raises LinkError: the generation before stands, and the device would go on or try again."""
        try:
            self.position = _position(self.link.request(COMMIT, work="commit"))
        except RefusedError as error:
            if error.status == DAMAGED:
                raise LinkError(
                    f"{STATUS[DAMAGED]}: no new generation was made of it.", "Resume: the generation before it is used."
                ) from error
            if error.status == FLASH_REFUSED:
                raise _refused(error, _position(error.fields).fault) from error
            raise
        return self.position

    def _part(self, kind: int, offset: int, wanted: int) -> bytes:
        """At most `wanted` bytes of an array; fewer at its end."""
        ask = self.guarded if kind in LEARNED else self.link.request
        part = ask(READ, struct.pack("<BIB", kind, offset, wanted))
        if len(part) > wanted:
            raise _impossible(f"{len(part)} B where {wanted} were asked for")
        return part

    def read(self, kind: int, size: int | None = None, most: int = MOST_BYTES) -> bytes:
        """One of the device's arrays. Raises LinkError when it is not of `size` bytes, or of more than `most`."""
        data = b""
        most = most if size is None else size
        while len(data) <= most:
            wanted = min(self.link.piece, READ_BYTES)
            part = self._part(kind, len(data), wanted)
            data += part
            if len(part) != wanted:  # its end
                break
        if len(data) > most or size not in (None, len(data)):
            raise _impossible(f"{len(data)} B of array {kind}")
        return data

    def _reserved(self, start: int, size: int) -> bytes:
        """Bytes of the reserved flash as they lie there; fewer at its end."""
        data = b""
        while len(data) < size:
            part = self._part(RESERVED, start + len(data), min(self.link.piece, READ_BYTES, size - len(data)))
            if not part:
                break
            data += part
        return data

    def logits(self) -> NDArray[np.int32]:
        """Logits of the last sample, Q16."""
        return np.frombuffer(self.read(LOGITS, 4 * self.hello.classes), np.int32)

    def output(self) -> NDArray[np.int8]:
        """What the last operation made of the last sample."""
        return np.frombuffer(self.read(OUTPUT), np.int8)

    def newest_bank(self) -> bytes:
        """Loads the newest generation of the flash; its header and payload, or nothing where the image can use none."""
        training = Training(rate=0.001, epochs=1, epoch_samples=1, fresh=False)
        try:
            self.position = _position(self._begun(training.fields(PATTERN)))
        except RefusedError as error:
            if error.status != OTHER_MODEL:
                raise
            return b""
        return self.read(BANK)

    def banks(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """What lies at (address, bytes) of the reserved flash, whoever wrote it; nothing where none can be read."""
        self.begin_inference()
        contents = []
        for place in places:
            try:
                contents.append(self._reserved(*place))
            except RefusedError as error:
                if error.status not in (ARGUMENT, FLASH_REFUSED):
                    raise
                contents.append(b"")
        return contents

    def norms(self) -> NDArray[np.uint32]:
        """N of every candidate channel; empty where they do not change."""
        data = self.read(NORMS, most=2 * self.hello.channels)
        if len(data) not in (0, 2 * self.hello.channels):  # none where they do not change
            raise _impossible(f"{len(data)} B of norms for {self.hello.channels} channels")
        norms = [unpack(int(code)) for code in np.frombuffer(data, np.uint16)]
        if max(norms, default=0) >= 2**32:
            raise _impossible("a norm of more than 32 bits")
        return np.array(norms, np.uint32)

    def selection(self) -> NDArray[np.bool_]:
        """Which candidate channels this epoch trains."""
        bits = np.unpackbits(
            np.frombuffer(self.read(SELECTION, (self.hello.channels + 7) // 8), np.uint8), bitorder="little"
        )
        return bits[: self.hello.channels].astype(bool)

    def digests(self) -> Digests:
        """Digests of what was done and of what is held."""
        return Digests(*_unpack(DIGEST_FIELDS, self.link.request(DIGESTS, work="digests"), "digests"))

    def marks(self) -> Marks:
        """High-water marks since `begin`."""
        return Marks(*_unpack(MARK_FIELDS, self.link.request(MARKS, work="marks"), "marks"))

    def force(self, counts: Sequence[int]) -> None:
        """Replaces the selection by the first counts[i] channels of each candidate layer."""
        self.guarded(FORCE, struct.pack(f"<{len(counts)}H", *counts))

    def roll_back(self) -> None:
        """Forgets the newest generation."""
        self._forget(ROLL_BACK, b"")

    def reset(self, *, wipe: bool = False) -> None:
        """Forgets both generations; with `wipe` nothing of them, or of others, is left in the reserved sectors."""
        self._forget(RESET, bytes([WIPE * wipe]))

    def _forget(self, command: int, fields: bytes) -> None:
        try:
            self.guarded(command, fields, work="erase")
        except RefusedError as error:
            if error.status != FLASH_REFUSED:
                raise
            raise _refused(error, *_unpack(SECTOR, error.fields, "a sector")) from error

    def exit(self) -> None:
        """Ends the target's program; a reply that got lost changes nothing any more."""
        with contextlib.suppress(LinkError):
            self.guarded(EXIT, patience=EXIT_SECONDS)
