# SPDX-License-Identifier: Apache-2.0
"""The work behind `medyate export`: newest generation to a model file."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from medyate import artefact, files
from medyate.compiled import COMPILE
from medyate.errors import ArtefactError, DataError
from medyate.export.trained import logit_range, read_compiled, trained_network
from medyate.extras import require
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES
from medyate.run import held
from medyate.run.generation import READABLE, Facts, Generation, newest, newest_of, read_bank
from medyate.run.log import read_log
from medyate.run.train import Compiled, connect
from medyate.run.transport import BAUD

WRITERS = {".tflite": "tflite", ".onnx": "onnx"}
"""Module of this package by suffix."""
NEEDS = {".tflite": ("tflite", "flatbuffers"), ".onnx": ("onnx",)}
KEEP = "Compile with --weights flash."
ASK_AGAIN = "Try again; if that does not help, train again."


def export_trained(
    folder: Path, to: Path, flash: Path, log: Path, on: str | None = None, baud: int = BAUD, key: bytes | None = None
) -> dict[str, Any]:
    """Writes the file; returns what went into it. `on` names a target to be asked, see `connect`."""
    if to.suffix not in WRITERS:
        raise DataError(f"'{to}' is none of {', '.join(WRITERS)}.", "Name the file after its format.")
    require(f"writing {to.suffix} files", *NEEDS[to.suffix])
    compiled = Compiled.read(folder)
    if compiled.weights_in_ram:
        raise ArtefactError("this model keeps its weights in RAM: no generation outlives a run.", KEEP)
    qgraph, weights, facts = read_compiled(compiled)
    live = None if on is None else ask(compiled, facts, on, flash, baud, key)
    with files.boundary(ArtefactError, f"what was trained in '{folder}' does not fit its stages", COMPILE):
        logits = logit_range(read_log(log, facts.digest))
        generation = live or newest_in(facts, flash)
        network = trained_network(compiled, qgraph, weights, generation, logits)
        artefact.check_writable(to)
        import_module(f"medyate.export.{WRITERS[to.suffix]}").write(*network, to)
    return {
        "file": str(to),
        "bytes": to.stat().st_size,
        "generation": generation.number,
        "epochs": generation.epochs,
        "classes": len(generation.head_bias),
    }


def read_flash(flash: Path) -> bytes:
    """A bank image. Raises ArtefactError."""
    return files.read_bytes(flash, ArtefactError, hint="It cannot be read; run `medyate run` first.")


def newest_in(facts: Facts, flash: Path) -> Generation:
    """The newest usable generation of a bank image. Raises ArtefactError without one."""
    image = read_flash(flash)
    found = held.find(image)
    if held.newest(found, facts.digest, READABLE) is None:
        held.refuse_stranger(found, facts.digest)
    return newest(facts, image)


def ask(
    compiled: Compiled, facts: Facts, on: str, flash: Path, baud: int = BAUD, key: bytes | None = None
) -> Generation:
    """What a live target holds, over the link. Raises ArtefactError when that is nothing, or arrived damaged.

    What the image cannot use, because it is of another model or format, it has kept: that is read as it lies there.
    """
    alone: AbstractContextManager[None] = nullcontext()
    if not on.startswith("serial:"):
        newest_in(facts, flash)  # without it the emulated target would start from an empty flash
        alone = artefact.lock(compiled.folder, ArtefactError(f"a run uses '{compiled.folder}'.", "Wait for it."))
    with alone, connect(compiled, on, flash, count=False, any_image=True, baud=baud, key=key) as session:
        bank = b"" if session.hello.digest != facts.digest else session.newest_bank()
        size = BANK_HEADER_BYTES + BANK_BODY_BYTES + facts.state.saved_bytes + facts.weight_bytes
        banks = [] if bank else session.banks([(at, size) for at in sorted({at for at, _ in facts.places})])
    if not bank:
        return newest_of(facts, banks)
    generation = read_bank(facts, bank)
    if generation is None:
        raise ArtefactError("the target's flash and the checksum of its newest generation do not fit.", ASK_AGAIN)
    return generation
