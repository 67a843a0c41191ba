# SPDX-License-Identifier: Apache-2.0
"""Frames between host and target: COBS, a zero byte, a CRC-32 inside; requests are repeated if lost."""

from __future__ import annotations

import secrets
import struct
import zlib
from typing import Protocol

from cobs import cobs

from medyate.errors import LinkError

PROTOCOL = 1
BODY_BYTES = 528
DATA_BYTES = BODY_BYTES - 8
"""Sample bytes in one DATA request."""
TRIES = 5

STATUS = {
    1: "an argument is out of range",
    2: "the arena does not fit the model",
    3: "the request does not fit the state",
    4: "the flash refused an operation",
    5: "there is no valid generation in flash",
    6: "the generation in flash belongs to another model; start fresh to discard it",
    7: "a frame was damaged or of another protocol version",
    8: "the link was closed",
    9: "the step was aborted",
}


class Transport(Protocol):
    """Bytes to and from a target."""

    def write(self, data: bytes) -> None:
        """Sends all bytes. Raises LinkError when the target is gone."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, waiting up to `timeout` seconds; b'' if nothing. Raises LinkError."""


class Link:
    """One request at a time; a reply that does not come is asked for again under the same number."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        self.transport = transport
        self.timeout = timeout
        # A target that is still running remembers the last host's number: do not start with it.
        self._sequence = secrets.randbelow(255)
        self._buffer = b""

    def request(self, command: int, fields: bytes = b"") -> bytes:
        """The reply's fields. Raises LinkError when the target refuses or stays silent."""
        self._sequence = self._sequence % 255 + 1
        body = bytes([PROTOCOL, self._sequence, command, 0]) + fields
        frame = cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
        for _ in range(TRIES):
            self.transport.write(frame)
            reply = self._reply(command)
            if reply is not None:
                if reply[3] != 0:
                    reason = STATUS.get(reply[3], f"status {reply[3]}")
                    raise LinkError(f"the target refused a request: {reason}.", "See its status in SPEC.md.")
                return reply[4:]
        raise LinkError(
            f"the target did not answer {TRIES} times within {self.timeout:g} s.",
            "Check the connection and that the image is the one just compiled.",
        )

    def _reply(self, command: int) -> bytes | None:
        while True:
            frame = self._frame()
            if frame is None:
                return None
            try:
                body = cobs.decode(frame)
            except cobs.DecodeError:
                continue
            if len(body) < 8 or zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
                continue
            if body[0] == PROTOCOL and body[1] == self._sequence and body[2] == command:
                return body[:-4]

    def _frame(self) -> bytes | None:
        while b"\0" not in self._buffer:
            received = self.transport.read(self.timeout)
            if not received:
                return None
            self._buffer += received
        frame, self._buffer = self._buffer.split(b"\0", 1)
        return frame
