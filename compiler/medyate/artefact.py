# SPDX-License-Identifier: Apache-2.0
"""Stage artefacts on disk: readable JSON and npz, written beside and renamed, so never half there."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import tempfile
import tokenize
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medyate import files
from medyate.errors import ArtefactError, MedyateError

JSON_MAX = 1 << 25
"""Bytes of a JSON file; in memory it takes up to 25 times as much."""
KINDS = "biufcSUmM"
"""Kinds of numpy's types that an array on disk may have: no objects, no records."""
MADE_BY = "Check the path; `medyate compile` and `medyate rank` make such files."

Form: TypeAlias = "type | tuple[Form, ...] | list[Form] | Mapping[str, Form] | Callable[[Any], bool] | None"
"""What a value of JSON has to be: of a type, None, one of several forms, a list of a form, an object with at least
these keys, or what a function says yes to. A float may be whole; neither it nor an int is a truth value."""


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


def read_json(path: Path, form: Form = dict) -> dict[str, Any]:
    """Reads a JSON object of a form. Raises ArtefactError when it is missing, damaged or of another form."""
    text = files.read_bytes(path, ArtefactError, JSON_MAX, MADE_BY)
    with files.boundary(ArtefactError, f"'{path}' cannot be read as JSON", "Make it again."):
        content = json.loads(text, parse_constant=_number, parse_float=_number)
    if not isinstance(content, dict):
        raise ArtefactError(f"'{path}' holds no JSON object.", "Make it again.")
    check_form(path, content, form)
    return content


def check_form(path: Path, content: Any, form: Form) -> None:
    """Raises ArtefactError, saying where, when a file's content is not of a form."""
    place = _misfit(content, form)
    if place is not None:
        raise ArtefactError(
            f"'{path}' is damaged, or of another version: its {place or 'content'} is not what was written there.",
            "Make it again with the command that wrote it.",
        )


def fits(value: Any, form: Form) -> bool:
    """Whether a value is of a form."""
    return _misfit(value, form) is None


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return value


def count(value: Any) -> bool:
    """A form: a whole number from 0 on that fits 48 bits."""
    return type(value) is int and 0 <= value < 1 << 48


def _misfit(value: Any, form: Form, at: str = "") -> str | None:
    """Where a value is not of a form; '' is the value itself, None nowhere."""
    parts: list[tuple[str, Any, Form]]
    if isinstance(form, tuple):
        return None if any(_misfit(value, one) is None for one in form) else at
    if isinstance(form, list) and isinstance(value, list):
        parts = [(str(place), item, form[0]) for place, item in enumerate(value)]
    elif isinstance(form, Mapping) and isinstance(value, dict):
        parts = [(key, value.get(key, _MISSING), inner) for key, inner in form.items()]
    else:
        return None if _is(value, form) else at
    places = (_misfit(item, inner, f"{at}.{key}".lstrip(".")) for key, item, inner in parts)
    return next((place for place in places if place is not None), None)


_MISSING = object()


def _is(value: Any, form: Any) -> bool:
    if form is None:
        return value is None
    if form is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is form if isinstance(form, type) else callable(form) and bool(form(value))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes an npz; the same arrays give the same bytes."""
    write_bytes(path, packed(arrays))


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an npz."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            part = io.BytesIO()
            np.lib.format.write_array(part, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), part.getvalue())
    return buffer.getvalue()


def read_arrays(
    path: Path, kind: type[MedyateError] = ArtefactError, remedy: str = "Make it again."
) -> dict[str, NDArray[Any]]:
    """Reads an npz of plain arrays. Raises `kind` when it is missing, damaged, or larger than files.FILE_MAX."""
    files.check_regular(path, kind)
    arrays = {}
    with files.boundary(kind, f"'{path}' is no readable npz", remedy), files.archive(path) as opened:
        for member in opened.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in arrays:
                raise zipfile.BadZipFile(f"'{member.filename}' is no array")
            arrays[name] = _array(member.filename, files.unpack(opened, member))
    return arrays


def _array(name: str, content: bytearray) -> NDArray[Any]:
    """The array of an npy file. Raises ValueError, or another of files.DAMAGE, where it holds none."""
    part = io.BytesIO(content[:HEADER_MAX])
    version = np.lib.format.read_magic(part)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"'{name}' is of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():  # about old writers, and about text that is no Python
        warnings.simplefilter("ignore")
        try:
            shape, is_fortran, dtype = read(part)
        except tokenize.TokenError as error:
            raise ValueError(f"'{name}' has no header") from error
    if dtype.kind not in KINDS or dtype.subdtype is not None or dtype.itemsize == 0:
        raise ValueError(f"'{name}' holds {dtype}, no plain numbers")
    first = part.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - first:
        raise ValueError(f"'{name}' of {shape} holds {len(content) - first:,} B")
    values = np.frombuffer(content, dtype, offset=first)
    return values.reshape(shape, order="F" if is_fortran else "C")


HEADER_MAX = 1 << 17
"""Bytes of an npy file that its header may take; numpy reads 10,000."""
