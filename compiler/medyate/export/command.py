# SPDX-License-Identifier: Apache-2.0
"""The work behind `medyate export`: newest generation to a model file."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.errors import ArtefactError, DataError
from medyate.export.trained import logit_range, read_compiled, trained_network
from medyate.run.generation import TRAIN_FIRST, Facts, Generation, newest, read_bank
from medyate.run.train import Compiled, connect
from medyate.run.transport import BAUD

WRITERS = {".tflite": "tflite", ".onnx": "onnx"}
"""Module of this package by suffix."""
KEEP = "Compile with --weights flash."
ASK_AGAIN = "Try again; if that does not help, train again."


def export_trained(
    folder: Path, to: Path, flash: Path, log: Path, on: str | None = None, baud: int = BAUD, key: bytes | None = None
) -> dict[str, Any]:
    """Writes the file; returns what went into it. `on` names a target to be asked, see `connect`."""
    if to.suffix not in WRITERS:
        raise DataError(f"'{to}' is none of {', '.join(WRITERS)}.", "Name the file after its format.")
    compiled = Compiled.read(folder)
    if compiled.weights_in_ram:
        raise ArtefactError("this model keeps its weights in RAM: no generation outlives a run.", KEEP)
    qgraph, weights, facts = read_compiled(compiled)
    generation = newest(facts, read_flash(flash)) if on is None else ask(compiled, facts, on, flash, baud, key)
    logits = logit_range(artefact.read_json(log))
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
    try:
        return flash.read_bytes()
    except OSError as error:
        raise ArtefactError(f"'{flash}' cannot be read: {error.strerror}.", "Run `medyate run` first.") from error


def ask(
    compiled: Compiled, facts: Facts, on: str, flash: Path, baud: int = BAUD, key: bytes | None = None
) -> Generation:
    """What a live target holds, over the link. Raises ArtefactError when that is nothing, or arrived damaged."""
    held: AbstractContextManager[None] = nullcontext()
    if not on.startswith("serial:"):
        read_flash(flash)  # without it the emulated target would start with an empty one
        held = artefact.lock(compiled.folder, ArtefactError(f"a run uses '{compiled.folder}'.", "Wait for it."))
    with held, connect(compiled, on, flash, count=False, baud=baud, key=key) as session:
        bank = session.newest_bank()
    if not bank:
        raise ArtefactError("the target's flash holds no usable generation.", TRAIN_FIRST)
    generation = read_bank(facts, bank)
    if generation is None:
        raise ArtefactError("the target's flash and the checksum of its newest generation do not fit.", ASK_AGAIN)
    return generation
