# SPDX-License-Identifier: Apache-2.0
"""Requests as bytes, for tests that send what a Session would not."""

from __future__ import annotations

import struct
import zlib

from cobs import cobs

from medyate.run.link import PROTOCOL


def frame(sequence: int, command: int, fields: bytes = b"", protocol: int = PROTOCOL) -> bytes:
    """One request."""
    body = bytes([protocol, sequence, command, 0]) + fields
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
