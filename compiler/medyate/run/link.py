# SPDX-License-Identifier: Apache-2.0
"""Frames between host and target: COBS, a zero byte, a CRC-32 inside; requests are repeated if lost."""

from __future__ import annotations

import secrets
import struct
import zlib
from collections.abc import Sequence
from typing import Protocol

from cobs import cobs

from medyate.errors import LinkError

PROTOCOL = 6
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
    6: "the generation in flash belongs to another model or format; start fresh to discard it",
    7: "a frame was damaged or of another protocol version",
    8: "the link was closed",
    9: "the step was aborted",
    10: "the generation in use has changed in flash since it was loaded",
}


class RefusedError(LinkError):
    """The target answered with a status; some commands give fields with it."""

    def __init__(self, status: int, fields: bytes) -> None:
        reason = STATUS.get(status, f"status {status}")
        super().__init__(f"the target refused a request: {reason}.", "See its status in SPEC.md.")
        self.status = status
        self.fields = fields


class Transport(Protocol):
    """Bytes to and from a target."""

    buffered: bool
    """Whether requests may be sent ahead of their replies: true of pipes, false of a UART."""

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
        frame = self._next_frame(command, fields)
        for _ in range(TRIES):
            self.transport.write(frame)
            reply = self._reply(command, self._sequence)
            if reply is not None:
                return _accepted(reply)
        raise self._silent()

    def send_all(self, command: int, pieces: Sequence[bytes]) -> None:
        """Requests without reply fields, the first of which starts anew what the others continue.

        Over a buffered transport they are sent ahead; if one is lost, all are repeated.
        """
        if not self.transport.buffered:
            for piece in pieces:
                self.request(command, piece)
            return
        for _ in range(TRIES):
            frames, numbers = [], []
            for piece in pieces:
                frames.append(self._next_frame(command, piece))
                numbers.append(self._sequence)
            self.transport.write(b"".join(frames))
            replies = [self._reply(command, number) for number in numbers]
            if all(reply is not None and reply[3] == 0 for reply in replies):
                return
            if all(reply is not None for reply in replies):
                _accepted(next(reply for reply in replies if reply is not None and reply[3] != 0))
        raise self._silent()

    def _next_frame(self, command: int, fields: bytes) -> bytes:
        self._sequence = self._sequence % 255 + 1
        body = bytes([PROTOCOL, self._sequence, command, 0]) + fields
        frame: bytes = cobs.encode(body + struct.pack("<I", zlib.crc32(body)))
        return frame + b"\0"

    def _silent(self) -> LinkError:
        return LinkError(
            f"the target did not answer {TRIES} times within {self.timeout:g} s.",
            "Check the connection and that the image is the one just compiled.",
        )

    def _reply(self, command: int, sequence: int) -> bytes | None:
        while True:
            frame = self._frame()
            if frame is None:
                return None
            try:
                body: bytes = cobs.decode(frame)
            except cobs.DecodeError:
                continue
            if len(body) < 8 or zlib.crc32(body[:-4]) != struct.unpack("<I", body[-4:])[0]:
                continue
            if body[0] == PROTOCOL and body[1] == sequence and body[2] == command:
                return body[:-4]

    def _frame(self) -> bytes | None:
        while b"\0" not in self._buffer:
            received = self.transport.read(self.timeout)
            if not received:
                return None
            self._buffer += received
        frame, self._buffer = self._buffer.split(b"\0", 1)
        return frame


def _accepted(reply: bytes) -> bytes:
    """The fields of a reply. Raises RefusedError."""
    if reply[3] != 0:
        raise RefusedError(reply[3], reply[4:])
    return reply[4:]
