# SPDX-License-Identifier: Apache-2.0
"""What a stage made before, found again by what it was made from: a second plan of a network does only what is new.

An entry is an npz, named by a digest of the stage's inputs, of this package's own sources and of the versions of
the libraries that compute. So nothing has to be thrown away by hand; the entries that were not used for longest go
when they are too many. MEDYATE_CACHE names another folder, or 'off'. A cache that cannot be read or written is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.artefact import packed, read_arrays
from medyate.errors import MedyateError

Arrays = Mapping[str, NDArray[Any]]

VARIABLE = "MEDYATE_CACHE"
OFF = "off"
MOST_BYTES = 1 << 29
"""Of all entries."""
LIBRARIES = ("numpy", "torch")
NEW = ".new-"
OLD_SECONDS = 3600
"""Age at which what was to become an entry has been left behind."""


def folder() -> Path | None:
    """Where entries lie; None: nothing is kept."""
    named = os.environ.get(VARIABLE, "")
    if named == OFF:
        return None
    if named:
        return Path(named)
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        return None
    return home / "medyate" / "stages"


def kept(stage: str, parts: Sequence[Any], make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, or gave for the same parts: arrays, mappings of them, or what repr() tells apart."""
    root = folder()
    if root is None:
        return make()
    path = root / f"{stage}-{digest(parts)}.npz"
    found = _read(path)
    if found is None:
        found = make()
        _write(path, found)
    return found


def digest(parts: Sequence[Any]) -> str:
    """Of some inputs and of the program that takes them."""
    sha = hashlib.sha256(_program().encode())
    for part in parts:
        _feed(sha, part)
    return sha.hexdigest()[:32]


def _feed(sha: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        sha.update(f"array {part.dtype.str} {part.shape} ".encode())
        sha.update(np.ascontiguousarray(part).data)
    elif isinstance(part, Mapping):
        sha.update(f"mapping {len(part)} ".encode())
        for name, value in sorted(part.items()):
            _feed(sha, name)
            _feed(sha, value)
    else:
        text = repr(part).encode()
        sha.update(f"{type(part).__name__} {len(text)} ".encode() + text)


@cache
def _program() -> str:
    """A digest of this package's sources, and the versions of what computes."""
    sha = hashlib.sha256()
    root = Path(__file__).parent
    for source in sorted(root.rglob("*.py")):
        sha.update(source.relative_to(root).as_posix().encode() + source.read_bytes())
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            sha.update(f"{library} {importlib.metadata.version(library)}".encode())
    return sha.hexdigest()


def _read(path: Path) -> Arrays | None:
    """An entry, which is thereby the one that was used last; None: there is none, or it is damaged."""
    try:
        found = read_arrays(path)
        os.utime(path)
    except (MedyateError, OSError):
        return None
    return found


def _write(path: Path, arrays: Arrays) -> None:
    """Keeps an entry if the disk lets it."""
    if sum(array.nbytes for array in arrays.values()) > MOST_BYTES // 4:
        return
    name = ""
    try:
        content = packed(arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=NEW, delete=False) as file:
            name = file.name
            file.write(content)
        os.replace(name, path)
        if path.stem.endswith("0"):  # one of sixteen: it looks at all of them
            _shrink(path.parent)
    except OSError:
        if name:
            with contextlib.suppress(OSError):
                Path(name).unlink(missing_ok=True)


def _shrink(root: Path) -> None:
    """Removes the entries that were not used for longest, as far as there is no room for them."""
    entries = []
    for path in root.iterdir():
        with contextlib.suppress(OSError):  # another process removed it
            status = path.stat()
            left_behind = path.name.startswith(NEW) and time.time() - status.st_mtime > OLD_SECONDS
            if left_behind:
                path.unlink()
            elif path.suffix == ".npz":
                entries.append((status.st_mtime, status.st_size, path))
    total = 0
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > MOST_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()
