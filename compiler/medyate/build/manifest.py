# SPDX-License-Identifier: Apache-2.0
"""Which files in a project's folder are medyate's own: it deletes and replaces no others.

The list, `.medyate.json`, has the SHA-256 of every file that was written (`sources`) and of every file that the build
made (`products`). A file that is not listed is somebody's, and so is a source that no longer is what was written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medyate.artefact import read_json, write_bytes, write_json
from medyate.errors import ArtefactError

NAME = ".medyate.json"
KEPT = ".kept"


def replace_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Deletes what is listed and unchanged, writes `files` (relative path to content) and lists them.

    Returns the new names of what was in the way and somebody's: a source that was edited, a file that was not listed,
    or the whole folder where it has no list. Raises ArtefactError when the disk refuses.
    """
    try:
        kept = [] if _listed(folder) is not None or not os.path.lexists(folder) else [_put_aside(folder)]
        kept += _clear(folder, files)
    except OSError as error:
        raise ArtefactError(
            f"cannot clear '{folder}': {error.strerror}.", "Check the folder, or give another --out."
        ) from error
    write_json(folder / NAME, {"sources": {name: _sha(content) for name, content in files.items()}, "products": {}})
    for name, content in files.items():
        write_bytes(folder / name, content)
    return kept


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Lists as products what appears in the folder meanwhile, whether the build succeeds or not."""
    before = set(_files(folder))
    try:
        yield
    finally:
        listed = _listed(folder) or {"sources": {}}
        made = {name: _digest(folder / name) for name in _files(folder) if name not in before}
        write_json(folder / NAME, {"sources": listed["sources"], "products": made})


def _clear(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Deletes files of the list that are unchanged and puts aside what is in the way of `files`."""
    listed = _listed(folder) or {"sources": {}, "products": {}}
    kept = []
    for name, digest in {**listed["products"], **listed["sources"]}.items():
        path = folder / name
        if not os.path.lexists(path) or not _inside(folder, path):
            continue
        if _digest(path) == digest:
            path.unlink()
            _remove_empty(folder, path.parent)
        elif name in listed["sources"] and (name not in files or _digest(path) != _sha(files[name])):
            kept.append(_put_aside(path))
    for name, content in files.items():
        path = folder / name
        if not _inside(folder, path):
            raise ArtefactError(f"'{path.parent}' leads out of '{folder}'.", "Remove that link, or give another --out.")
        if os.path.lexists(path) and _digest(path) != _sha(content):
            kept.append(_put_aside(path))
    return kept


def _listed(folder: Path) -> dict[str, dict[str, str]] | None:
    """The list; None without one, or where it is none."""
    try:
        content: Any = read_json(folder / NAME)
    except ArtefactError:
        return None
    parts = {part: content.get(part) for part in ("sources", "products")}
    valid = all(
        isinstance(part, dict) and all(isinstance(digest, str) for digest in part.values()) for part in parts.values()
    )
    return parts if valid else None


def _inside(folder: Path, path: Path) -> bool:
    """Whether a file lies where its name says; a linked folder or '..' could lead anywhere."""
    return path.parent.resolve().is_relative_to(folder.resolve())


def _put_aside(path: Path) -> Path:
    """Renames to the first free name."""
    number = 1
    while os.path.lexists(to := path.with_name(f"{path.name}{KEPT}{'' if number == 1 else number}")):
        number += 1
    return path.rename(to)


def _remove_empty(folder: Path, directory: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: somebody's
        while directory != folder:
            directory.rmdir()
            directory = directory.parent


def _files(folder: Path) -> Iterator[str]:
    """Relative paths of all files and links but the list; links are not followed."""
    for root, directories, names in os.walk(folder):
        links = [name for name in directories if (Path(root) / name).is_symlink()]
        for name in (*names, *links):
            path = (Path(root) / name).relative_to(folder)
            if str(path) != NAME:
                yield path.as_posix()


def _digest(path: Path) -> str:
    """Of a file's bytes or of where a link leads; empty for a folder or what is no file."""
    if path.is_symlink():
        return _sha(os.fsencode(path.readlink()))
    return _sha(path.read_bytes()) if path.is_file() else ""


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
