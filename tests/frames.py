# SPDX-License-Identifier: Apache-2.0
"""Requests as bytes, for tests that send what a Session would not."""

from __future__ import annotations

import struct
import zlib

from cobs import cobs

from medyate.run.link import HEAD, PROTOCOL, REQUEST


def frame(sequence: int, command: int, fields: bytes = b"", protocol: int = PROTOCOL, session: int = 0) -> bytes:
    """One request, without the zero in front; session 0 is the one that a target starts in."""
    body = HEAD.pack(protocol, sequence, command, REQUEST, session) + fields
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
