# SPDX-License-Identifier: Apache-2.0
"""Frames between host and target: COBS between zero bytes, a CRC-32 inside; what is lost is repeated.

How soon it is repeated, and how long a frame is, follow from what the line has done so far.
"""

from __future__ import annotations

import math
import secrets
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cobs import cobs

from medyate.errors import LinkError

PROTOCOL = 9
BODY_BYTES = 530
HEAD = struct.Struct("<BBBBH")
"""Protocol, sequence, command, status, session."""
REQUEST = 0xFF
"""In the place of the status: what has it came from a host."""
ARGUMENT, FRAME, SESSION = 1, 7, 11
"""Statuses: an argument is out of range; a frame was damaged; its session is not open."""
DATA_BYTES = BODY_BYTES - HEAD.size - 4
"""Sample bytes in one DATA request, at most."""
READ_BYTES = 160 - HEAD.size
"""Bytes of an array in one reply, at most."""
LEAST_BYTES = 16
"""Of a sample in one frame, on the worst of lines."""

ANSWER_SECONDS = 10.0
"""Patience with a request that needs no work."""
WORK_SECONDS = 120.0
"""Patience with the first request of a kind of work: a step, a commit that erases."""
WORK_LEAST_SECONDS = 30.0
WORK_FACTOR = 20.0
"""Patience with the next ones, in times of the longest so far."""
FIRST_REPEAT_SECONDS = 0.04
FIRST_REPLY_BYTES = 200
"""Of a reply whose length is not known yet."""
REPEAT_WORK_SECONDS = 0.02
"""The first time, where the line is known and the work is not."""
REPEAT_LEAST_SECONDS = 0.0015
"""Above the mean."""
REPEAT_MOST_SECONDS = 0.12
"""As long as nothing was answered; then some times what that took, and no less than the next line."""
REPEAT_KNOWN_SECONDS = 0.004
SOONEST_SECONDS = 0.0001
"""No reply takes less."""
BAD_SECONDS = 20.0
BAD_LOST = 10
BAD_SHARE = 0.3
"""A line on which fewer requests are answered than this, of those that something is known of, is given up."""
MEMORY_BYTES = 16384
"""Half of what the line did that long ago counts."""
FRAME_COST = 36
"""Bytes of a piece's frame and of its reply's, without the piece."""
AHEAD_BYTES = 32768
PIECE_TRIES = 4
"""Then it is cut anew, shorter by what was lost."""
LOST = -1
UNENDED_BYTES = 1024
"""What has no end after so many bytes is no frame; only the last ones are kept."""
SHOWN_BYTES = 60

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
    11: "another session is open",
    12: "the image does not allow it, or the key is wrong",
}


Seal = Callable[[bytes], bytes]


class RefusedError(LinkError):
    """The target answered with a status; some commands give fields with it."""

    def __init__(self, status: int, fields: bytes) -> None:
        reason = STATUS.get(status, f"status {status}")
        super().__init__(f"the target refused a request: {reason}.", "See its status in SPEC.md.")
        self.status = status
        self.fields = fields


class RestartedError(LinkError):
    """The target has forgotten the session: it was reset, or lost its power."""

    def __init__(self) -> None:
        super().__init__(
            "the target restarted: what it learned since the last commit is lost.",
            "Go on with `medyate run --resume`; look at its power and reset lines if it happens again.",
        )


class Transport(Protocol):
    """Bytes to and from a target."""

    buffered: bool
    """Whether requests may be sent ahead of their replies: true of pipes, false of a UART."""

    def write(self, data: bytes) -> None:
        """Sends all bytes. Raises LinkError when the target is gone."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, waiting up to `timeout` seconds; b'' if nothing. Raises LinkError."""


def encode(body: bytes) -> bytes:
    """A frame; the zero in front ends what else was on the line."""
    frame: bytes = cobs.encode(body + struct.pack("<I", zlib.crc32(body)))
    return b"\0" + frame + b"\0"


def decode(frame: bytes) -> bytes | None:
    """The body of what lay between two zeros; None: it is no frame, or a damaged one."""
    try:
        body: bytes = cobs.decode(frame)
    except cobs.DecodeError:
        return None
    whole = len(body) >= HEAD.size + 4 and zlib.crc32(body[:-4]) == struct.unpack("<I", body[-4:])[0]
    return body[:-4] if whole else None


@dataclass
class Timer:
    """When to repeat a request of one kind and length: smoothed time and deviation. Source: RFC 6298."""

    wait: float
    """Seconds until the next repetition."""
    smoothed: float = -1.0
    deviation: float = 0.0
    longest: float = 0.0
    """Of those that were sent once."""
    shortest: float = math.inf
    """Of all lately, from first sending to reply: no less than what the work takes."""

    @property
    def soonest(self) -> float:
        """What comes before is of something else."""
        return max(self.smoothed / 2, SOONEST_SECONDS)

    def answered(self, seconds: float) -> None:
        """Of a request that was sent once, or again after an answer that was damaged."""
        self.longest = max(self.longest, seconds)
        if self.smoothed < 0:
            self.smoothed, self.deviation = seconds, seconds / 2
        else:
            self.deviation += (abs(seconds - self.smoothed) - self.deviation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        self.wait = self.smoothed + max(4 * self.deviation, REPEAT_LEAST_SECONDS)

    def took(self, seconds: float) -> None:
        """Of any request. A line that becomes slower for good raises the shortest little by little."""
        self.shortest = min(seconds, 1.25 * self.shortest)

    def silent(self) -> None:
        """Nothing came: the wait doubles, and stays so until a request is answered that was sent once."""
        known = REPEAT_MOST_SECONDS if self.shortest == math.inf else max(REPEAT_KNOWN_SECONDS, 4 * self.shortest)
        self.wait = max(self.wait, min(2 * self.wait, max(known, 2 * self.smoothed)))


@dataclass
class Line:
    """What the line has done to frames."""

    sent: float = 0.0
    lost: float = 0.0
    """Bytes sent and frames lost; of old, less and less."""
    since: float = 0.0
    frames_answered: int = 0
    frames_lost: int = 0
    """Since `since`."""
    damaged: int = 0
    text: bytes = b""
    """The last that looked like text."""
    noise: int = 0
    """Bytes that were no frame."""
    echoes: int = 0
    protocol: int = PROTOCOL
    """Of a target that speaks another one."""

    def exchanged(self, size: int, *, lost: bool) -> None:
        """A request and its reply."""
        keep = 0.5 ** (size / MEMORY_BYTES)
        self.sent, self.lost = self.sent * keep + size, self.lost * keep + lost

    @property
    def piece(self) -> int:
        """Bytes of a sample in one frame that get it across soonest: sqrt(cost of a frame / losses per byte)."""
        if self.lost < 1e-3:
            return DATA_BYTES
        best = math.sqrt(FRAME_COST * self.sent / self.lost)
        return max(LEAST_BYTES, min(DATA_BYTES, int(best) // 4 * 4))

    def check(self, now: float, *, lost: bool) -> None:
        """Counts a request that was answered, or that is known to be lost. Raises LinkError when too few get across."""
        self.frames_lost += lost
        self.frames_answered += not lost
        if now - self.since < BAD_SECONDS:
            return
        known = self.frames_lost + self.frames_answered
        if self.frames_lost >= BAD_LOST and self.frames_answered < BAD_SHARE * known:
            raise LinkError(
                f"the line is too bad: {self.frames_lost} of {known} frames were lost in {now - self.since:.0f} s.",
                "Look at cable, ground and speed (--baud).",
            )
        self.since, self.frames_lost, self.frames_answered = now, 0, 0


class Link:
    """One session with a target: a request at a time, repeated until its reply comes."""

    def __init__(
        self,
        transport: Transport,
        timeout: float = ANSWER_SECONDS,
        bytes_per_second: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout`: seconds that a request without work may take, repetitions included; then the line's speed.

        `clock`: seconds, by which all waiting is measured.
        """
        self.transport = transport
        self.timeout = timeout
        self.bytes_per_second = bytes_per_second
        self.now = clock
        self.line = Line(since=clock())
        self.session = 0
        self._sequence = 0
        self._buffer = b""
        self._timers: dict[tuple[int, str, int], Timer] = {}

    def open(self, command: int) -> bytes:
        """The reply's fields to the request that opens a session, under a new number."""
        self.session = (1 + secrets.randbelow(255)) * 256 + 1 + secrets.randbelow(255)
        return self.request(command)

    @property
    def piece(self) -> int:
        """Bytes of a sample, or of an array, that one frame should carry."""
        return self.line.piece

    def request(
        self,
        command: int,
        fields: bytes = b"",
        *,
        work: str = "",
        patience: float | None = None,
        seal: Seal | None = None,
    ) -> bytes:
        """The reply's fields. Raises LinkError when the target refuses, restarted, or stays silent.

        `work`: what the target does before it answers, a name for each kind that takes a time of its own. `patience`:
        seconds, where the link's own do not suit. `seal`: gives what follows the body.
        """
        status, answer = self.ask(command, fields, work=work, patience=patience, seal=seal)
        if status != 0:
            raise RefusedError(status, answer)
        return answer

    def ask(
        self,
        command: int,
        fields: bytes,
        *,
        work: str = "",
        ahead: bytes = b"",
        patience: float | None = None,
        tries: float = math.inf,
        seal: Seal | None = None,
    ) -> tuple[int, bytes]:
        """Status and fields of the reply. Raises LinkError when the target restarted or stays silent.

        `ahead`: frames that go out before, and whose replies do not matter. After so many `tries` the status is LOST.
        """
        frame = self.frame(command, fields, seal)
        size = len(ahead) + len(frame)
        timer = self._timer(command, work, size)
        patience = self._patience(timer, work) if patience is None else patience
        self.transport.write(ahead + frame)
        started = sent = self.now()
        once = True
        while True:
            reply, damaged = self._reply(command, min(sent + timer.wait, started + patience), sent + timer.soonest)
            now = self.now()
            if reply is not None:
                timer.took(now - started)
                if once:
                    timer.answered(now - sent)
                self.line.exchanged(size + len(reply), lost=False)
                self.line.check(now, lost=False)
                return self._accepted(reply)
            if now - started >= patience:
                raise self._silent(patience)
            if damaged or not work:  # else it may be at work still
                self.line.exchanged(size, lost=True)
                self.line.check(now, lost=True)
            tries -= 1
            if tries <= 0:
                return LOST, b""
            if not damaged:  # from now on nobody knows which of the frames a reply answers
                timer.silent()
                once = False
            self.transport.write(frame)
            sent = self.now()

    def frame(self, command: int, fields: bytes, seal: Seal | None = None) -> bytes:
        """The frame of a new request."""
        self._sequence = self._sequence % 255 + 1
        body = HEAD.pack(PROTOCOL, self._sequence, command, REQUEST, self.session) + fields
        return encode(body if seal is None else body + seal(body))

    def stream(self, command: int, data: bytes) -> None:
        """Sends `data` in pieces behind their offsets; after a loss it goes on where the target says.

        Over a buffered transport pieces go ahead of the replies. Raises LinkError as `request` does.
        """
        at, since = 0, self.now()
        while at < len(data):
            size, first, ahead = self.piece, at, b""
            while self.transport.buffered and len(data) - at > size and len(ahead) < AHEAD_BYTES:
                ahead += self.frame(command, struct.pack("<I", at) + data[at : at + size])
                at += size
            fields = struct.pack("<I", at) + data[at : at + size]
            status, answer = self.ask(command, fields, ahead=ahead, tries=PIECE_TRIES)
            if status == LOST:
                at = first
            elif status in (0, ARGUMENT) and len(answer) == 4:
                at = min(struct.unpack("<I", answer)[0], len(data))
            else:
                raise RefusedError(status or ARGUMENT, answer)
            if at > first:
                since = self.now()
            elif self.now() - since > self.timeout:
                raise self._silent(self.timeout)

    def _timer(self, command: int, work: str, size: int) -> Timer:
        key = (command, work, size.bit_length())
        if key not in self._timers:
            known = [timer.wait for (_, kind, _), timer in self._timers.items() if not kind and timer.smoothed >= 0]
            first = FIRST_REPEAT_SECONDS
            if known:
                first = min(first, max(known) + (REPEAT_WORK_SECONDS if work else 0.0))
            self._timers[key] = Timer(first + (size + FIRST_REPLY_BYTES) / self.bytes_per_second)
        return self._timers[key]

    def _patience(self, timer: Timer, work: str) -> float:
        if not work:
            return self.timeout
        known = max(WORK_LEAST_SECONDS, WORK_FACTOR * timer.longest)
        return max(self.timeout, known if timer.longest > 0 else WORK_SECONDS)

    def _silent(self, patience: float) -> LinkError:
        self._is_damage(self._buffer)
        line, what = self.line, f"the target did not answer within {patience:g} s"
        if line.protocol != PROTOCOL:
            return LinkError(
                f"{what}: it speaks protocol {line.protocol}, this program {PROTOCOL}.",
                "Compile and flash the image again.",
            )
        if line.damaged:
            return LinkError(
                f"{what}: the line is too bad, {line.damaged} frames came damaged.",
                "Look at cable, ground and speed (--baud).",
            )
        if line.text:
            shown = line.text[-SHOWN_BYTES:].decode("ascii", "replace").strip()
            return LinkError(
                f"{what}; it prints text: {shown!r}.",
                "Another program runs there: flash the image that was just compiled.",
            )
        if line.echoes:
            return LinkError(f"{what}; the line gives back what is sent.", "Look at the wiring, and for another port.")
        if line.noise:
            return LinkError(
                f"{what}; {line.noise} bytes came that are no frame.", "Check --baud, and which program runs there."
            )
        return LinkError(f"{what}.", "Check the connection, --baud, and that the image is the one just compiled.")

    def _reply(self, command: int, deadline: float, expected: float) -> tuple[bytes | None, bool]:
        """(reply, False); or None, and whether something damaged came when the reply may have: after `expected`."""
        while True:
            while b"\0" in self._buffer:
                part, self._buffer = self._buffer.split(b"\0", 1)
                body = decode(part)
                if body is None:
                    if self._is_damage(part) and self.now() >= expected:
                        return None, True
                    continue
                protocol, sequence, answered, status, session = HEAD.unpack(body[: HEAD.size])
                if status == REQUEST:
                    self.line.echoes += 1
                elif protocol != PROTOCOL:
                    self.line.protocol = protocol
                elif session == self.session and (answered, status) == (0, FRAME):
                    return None, True
                elif (session, sequence, answered) == (self.session, self._sequence, command):
                    return body, False
            left = deadline - self.now()
            if left <= 0:
                return None, False
            self._buffer += self.transport.read(left)
            if b"\0" not in self._buffer and len(self._buffer) > UNENDED_BYTES:
                self._is_damage(self._buffer[:-UNENDED_BYTES])
                self._buffer = self._buffer[-UNENDED_BYTES:]

    def _is_damage(self, part: bytes) -> bool:
        """Whether what is no frame may have been one; remembers it."""
        if not part:
            return False
        if all(32 <= byte < 127 or byte in b"\t\n\r\x1b" for byte in part):
            self.line.text = (self.line.text + part)[-UNENDED_BYTES:]
            return False
        self.line.noise += len(part)
        self.line.damaged += self.session.to_bytes(2, "little") in part
        return True

    def _accepted(self, reply: bytes) -> tuple[int, bytes]:
        """Status and fields. Raises LinkError when the session is no longer open."""
        status, fields = reply[3], reply[HEAD.size :]
        if status == SESSION:
            if fields == bytes(2):
                raise RestartedError
            raise LinkError(
                "another host has opened a session with the target.", "Let only one program use it at a time."
            )
        return status, fields
