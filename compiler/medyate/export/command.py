# SPDX-License-Identifier: Apache-2.0
"""The work behind `medyate export`: newest generation to a model file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.errors import ArtefactError, DataError
from medyate.export.trained import logit_range, read_compiled, trained_network
from medyate.run.generation import newest
from medyate.run.train import Compiled

WRITERS = {".tflite": "tflite", ".onnx": "onnx"}
"""Module of this package by suffix."""


def export_trained(folder: Path, to: Path, flash: Path, log: Path) -> dict[str, Any]:
    """Writes the file; returns what went into it."""
    if to.suffix not in WRITERS:
        raise DataError(f"'{to}' is none of {', '.join(WRITERS)}.", "Name the file after its format.")
    compiled = Compiled.read(folder)
    qgraph, weights, facts = read_compiled(compiled)
    try:
        image = flash.read_bytes()
    except OSError as error:
        raise ArtefactError(f"'{flash}' cannot be read: {error.strerror}.", "Run `medyate run` first.") from error
    generation = newest(facts, image)
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
