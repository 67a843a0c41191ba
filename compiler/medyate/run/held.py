# SPDX-License-Identifier: Apache-2.0
"""What the file of a flash holds, of whichever model: asked before a run discards it, and where a model finds nothing.

A model looks for its generations where its own banks begin; another model's begin elsewhere. Here every header counts,
wherever it lies.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medyate.errors import ArtefactError, DataError
from medyate.ledger import BANK_HEADER_BYTES
from medyate.plan.banks import BankFlash
from medyate.run.generation import FORMAT, MAGIC, READABLE, WORDS, is_later

ERASED = b"\xff" * BANK_HEADER_BYTES


@dataclass(frozen=True)
class Held:
    """One generation by its header."""

    generation: int
    epochs: int
    model: int
    """Its digest."""
    format: int

    def is_of(self, digest: int, formats: Sequence[int] = (FORMAT,)) -> bool:
        """Whether it is a generation of this model in a format that can be read."""
        return self.model == digest and self.format in formats


def find(image: bytes) -> tuple[Held, ...]:
    """Every generation in an image of a flash whose header is whole, by rising address."""
    magic, found = struct.pack("<I", MAGIC), []
    at = image.find(magic)
    while at >= 0:
        header = image[at : at + BANK_HEADER_BYTES]
        if len(header) == BANK_HEADER_BYTES:
            words = struct.unpack(f"<{WORDS}I", header)
            if words[-1] == zlib.crc32(header[:-4]):
                found.append(Held(words[2], words[6], words[3], words[1]))
        at = image.find(magic, at + 1)
    return tuple(found)


def newest(held: Sequence[Held], digest: int, formats: Sequence[int] = (FORMAT,)) -> Held | None:
    """The newest generation of a model."""
    last: Held | None = None
    for one in held:
        if one.is_of(digest, formats) and (last is None or is_later(one.generation, last.generation)):
            last = one
    return last


def strangers(held: Sequence[Held], digest: int) -> str:
    """The generations that the model of this digest cannot use, as a part of a sentence; empty without one."""
    texts = [
        f"generation {one.generation} of another model (digest 0x{one.model:08x})"
        if one.format == FORMAT
        else f"generation {one.generation} in format {one.format} of the banks"
        for one in held
        if not one.is_of(digest)
    ]
    return " and ".join(texts)


def read_image(path: Path, flash: BankFlash) -> bytes:
    """The file of a flash; empty without one. Raises DataError for a file that is no flash: it is somebody's."""
    try:
        image = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DataError(f"'{path}' cannot be a flash file: {error.strerror}.", "Give another --flash.") from error
    if not (fits(image, flash) or image.startswith(ERASED) or find(image)):
        raise DataError(f"'{path}' is no flash file.", "Move it away, or give another --flash.")
    return image


def fits(image: bytes, flash: BankFlash) -> bool:
    """Whether it has the size of an image of this flash, complete or without its last parts, or is empty."""
    return len(image) in (0, *flash.image_sizes)


def refuse_to_discard(where: str, held: Sequence[Held], digest: int) -> None:
    """Raises DataError where there is a generation."""
    own, other = newest(held, digest), strangers(held, digest)
    if own is not None:
        raise DataError(
            f"{where} holds generation {own.generation} of this model, trained for {counted(own.epochs)}.",
            "Go on with it (--resume), or discard it (--fresh).",
        )
    if other:
        older = any(one.model == digest and one.format in READABLE for one in held)
        first = "Take what it learned (`medyate export`), then discard it" if older else "Discard it"
        raise DataError(f"{where} holds {other}.", f"{first} (--fresh), or keep it and give another --flash.")


def refuse_stranger(held: Sequence[Held], digest: int) -> None:
    """Raises ArtefactError where a flash in which a model found nothing holds generations of others."""
    other = strangers(held, digest)
    if other:
        raise ArtefactError(
            f"the flash is another model's: it holds {other}; this model is 0x{digest:08x}.",
            "Compile the model that was trained, or train this one afresh: `medyate run --fresh`.",
        )


def counted(epochs: int) -> str:
    """As a person says it."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"
