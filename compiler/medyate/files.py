# SPDX-License-Identifier: Apache-2.0
"""Files that nobody vouches for: what they are and how large before what they say, and what damaged ones raise."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medyate.errors import MedyateError

FILE_MAX = 1 << 30
"""Bytes of a file, and of what an archive unpacks to."""
DIRECTORY_MAX = 1 << 20
"""Bytes of an archive's list of members; each takes some ten times as much in memory."""
INFLATION_MAX = 1032
"""Bytes that deflate makes of one, at most."""
MADE_OF = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: INFLATION_MAX}
"""What one byte of a member unpacks to at most, by the compressions that are read."""
ENCRYPTED = 0x41
"""Flags of a member."""

DAMAGE: tuple[type[Exception], ...] = (
    *(
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ),
    *(SyntaxError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What readers raise where a file's content is not what it should be. A failed assertion is not among them."""


@contextmanager
def boundary(kind: type[MedyateError], what: str, remedy: str) -> Iterator[None]:
    """Where damage that is to be expected becomes an error of one kind; medyate's own errors pass."""
    try:
        yield
    except DAMAGE as error:
        raise kind(f"{what} ({reason(error)}).", remedy) from error


def reason(error: Exception) -> str:
    """An exception's first line, in brackets of a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0].rstrip(" .")[:120] or type(error).__name__


def check_regular(path: Path, kind: type[MedyateError], most: int = FILE_MAX, hint: str = "Check the path.") -> None:
    """Raises `kind` unless there is a file of at most so many bytes: no folder, pipe or device."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise kind(f"'{path}' does not exist.", hint) from error
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise kind(f"'{path}' cannot be read: {getattr(error, 'strerror', error)}.", hint) from error
    if not stat.S_ISREG(found.st_mode):
        raise kind(f"'{path}' is no regular file.", "Give a file, no folder, pipe or device.")
    if found.st_size > most:
        raise kind(f"'{path}' is larger than {most:,} B.", "Give a smaller one.")


def read_bytes(path: Path, kind: type[MedyateError], most: int = FILE_MAX, hint: str = "Check the path.") -> bytes:
    """A regular file's content. Raises `kind` for what is none, is too large or cannot be read."""
    check_regular(path, kind, most, hint)
    try:
        return path.read_bytes()
    except OSError as error:
        raise kind(f"'{path}' cannot be read: {error.strerror}.", hint) from error


class _Bounded(io.FileIO):
    """An archive's file; while it is opened, it does not hand out a list of members that is too long."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.opening and size is not None and size > DIRECTORY_MAX:
            raise zipfile.BadZipFile("it has too many members")
        return super().read(size)


@contextmanager
def archive(source: Path | bytearray, most: int = FILE_MAX) -> Iterator[zipfile.ZipFile]:
    """A zip, a file or in memory, whose members can be read one by one, all of them in bounded memory.

    Raises zipfile.BadZipFile, or another of DAMAGE, for one that is damaged, encrypted, packed in a way that is not
    read, or larger than `most` bytes when it is unpacked.
    """
    with _Bounded(source) if isinstance(source, Path) else io.BytesIO(source) as file, zipfile.ZipFile(file) as opened:
        if isinstance(file, _Bounded):
            file.opening = False
        size = file.seek(0, io.SEEK_END)
        names: set[str] = set()
        total = 0
        for member in opened.infolist():
            total += member.file_size
            if member.flag_bits & ENCRYPTED:
                raise zipfile.BadZipFile(f"'{member.filename}' is encrypted")
            if member.compress_type not in MADE_OF:
                raise zipfile.BadZipFile(f"'{member.filename}' is packed in an unknown way, {member.compress_type}")
            if member.compress_size > size or member.file_size > MADE_OF[member.compress_type] * member.compress_size:
                raise zipfile.BadZipFile(f"'{member.filename}' claims to be larger than it can be")
            if member.filename in names:
                raise zipfile.BadZipFile(f"it holds '{member.filename}' twice")
            if total > most:
                raise zipfile.BadZipFile(f"it is larger than {most:,} B when it is unpacked")
            names.add(member.filename)
        yield opened


def check_archive(source: Path | bytearray, most: int = FILE_MAX) -> None:
    """Raises what `archive` raises, for readers that unpack all of it at once."""
    with archive(source, most):
        pass


def unpack(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """A member's content, as much as there is: it grows with what is found, not with what is said."""
    content = bytearray()
    with opened.open(member) as file:
        while part := file.read(1 << 20):
            content += part
    if len(content) != member.file_size:
        raise zipfile.BadZipFile(f"'{member.filename}' ends early")
    return content
