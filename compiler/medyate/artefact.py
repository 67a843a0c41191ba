# SPDX-License-Identifier: Apache-2.0
"""Stage artefacts on disk: readable JSON and npz, written beside and renamed, so never half there."""

from __future__ import annotations

import fcntl
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import ArtefactError, MedyateError


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file or nothing. Raises ArtefactError when the disk refuses."""
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            name = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise ArtefactError(
            f"cannot write '{path}': {error.strerror}.", "Check the folder and the free space."
        ) from error


@contextmanager
def lock(path: Path, busy: MedyateError) -> Iterator[None]:
    """Holds a folder or a file, made if it is missing, for this process alone. Raises `busy` when another holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ArtefactError(f"'{path}' cannot be locked: {error.strerror}.", "Check the folder.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise busy from error
    try:
        yield
    finally:
        os.close(descriptor)  # which ends the lock, as the end of the process does


def check_writable(path: Path) -> None:
    """Raises ArtefactError when a file could not be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-"):
            pass
    except OSError as error:
        raise ArtefactError(
            f"cannot write '{path}': {error.strerror}.", "Check the folder and the free space."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file or nothing."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object, keys in the order given."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises ArtefactError when it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtefactError(
            f"'{path}' does not exist.", "Check the path; `medyate compile` and `medyate rank` make such files."
        ) from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"'{path}' cannot be read as JSON: {error}.", "Make it again.") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"'{path}' holds no JSON object.", "Make it again.")
    return content


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes an npz; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), part.getvalue())
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads an npz without pickles. Raises ArtefactError when it is missing or damaged."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise ArtefactError(f"'{path}' does not exist.", "Check the path.") from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArtefactError(f"'{path}' is no readable npz: {error}.", "Make it again.") from error
