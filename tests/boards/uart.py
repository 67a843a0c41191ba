# SPDX-License-Identifier: Apache-2.0
"""A line, and the shift registers at the part's end of it: what is common to all UARTs here. 8N1.

A line with a baud rate is as fast as that, and its characters come whether the receiver has read the last or not. A
line without one waits for the receiver: no character is lost, and none takes time.
"""

from __future__ import annotations

import os
import random
import select
import tty
from collections import deque
from collections.abc import Callable

from .machine import Machine

BITS = 10
"""Start, eight, stop."""
TOLERANCE = 0.025
"""Two ends that differ by more do not understand each other: half a bit in ten, shared."""
UNTIMED = 64
"""Cycles of a character on a line without a baud rate."""


class Line:
    """The other end, in this process. `sent` is what the part has sent.

    `bad` is the share of bytes, in both directions, that arrive as others.
    """

    def __init__(self, baud: int | None = None, bad: float = 0.0) -> None:
        self.baud = baud
        self.bad = bad
        self.damaged = 0
        """Bytes, in both directions."""
        self.sent = bytearray()
        self.waiting: deque[int] = deque()
        self._random = random.Random(f"{baud} {bad}")

    def put(self, data: bytes) -> None:
        """Sends to the part."""
        self.waiting.extend(data)

    def next(self) -> int | None:
        """To the part."""
        return self._carried(self.waiting.popleft()) if self.waiting else None

    def arrive(self, byte: int) -> None:
        """From the part."""
        self.sent.append(self._carried(byte))

    def _carried(self, byte: int) -> int:
        if not self.bad or self._random.random() >= self.bad:
            return byte
        self.damaged += 1
        return byte ^ self._random.randrange(1, 256)


class PtyLine(Line):
    """The other end is whoever opens `path`, a pseudo-terminal."""

    def __init__(self, baud: int | None = None, bad: float = 0.0) -> None:
        super().__init__(baud, bad)
        self.master, self.slave = os.openpty()  # the slave stays open: readers come and go
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self.slave)
        self.flushed = 0

    def wait(self, seconds: float) -> None:
        """Until the other end has sent something, at most so long."""
        self.flush()
        if not self.waiting:
            select.select([self.master], [], [], seconds)

    def next(self) -> int | None:
        if len(self.sent) == self.flushed:  # none has come since the last look
            self.flush()
        self.flushed = len(self.sent)
        if not self.waiting:
            try:
                self.waiting.extend(os.read(self.master, 4096))
            except BlockingIOError:
                return None
        return super().next()

    def arrive(self, byte: int) -> None:
        super().arrive(byte)
        if len(self.sent) >= 256:
            self.flush()

    def flush(self) -> None:
        """A write for each character would take longer than the part's program."""
        if not self.sent:
            return
        try:
            count = os.write(self.master, self.sent)
        except BlockingIOError:
            return
        del self.sent[:count]


class Serial:
    """Both shift registers of a UART and the characters that wait before them.

    `baud` gives the rate of the part's registers; `on` says whether the receiver, the transmitter is on and its pin
    is the UART's, and counts what is wrong. `changed` is called when a flag may have changed.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        line: Line,
        baud: Callable[[], float],
        receives: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.machine, self.name, self.line = machine, name, line
        self.baud, self.receives, self.changed = baud, receives, changed
        self.depth = 1
        self.received: deque[int] = deque()
        self.to_send: deque[int] = deque()
        self.sending = self.arriving = False
        self.overrun = self.framing = False
        machine.pollers.append(self.poll)

    def character(self) -> int:
        """Cycles of a character."""
        baud = self.line.baud
        return UNTIMED if baud is None else max(1, round(BITS * self.machine.hz / baud))

    def understood(self) -> bool:
        baud, own = self.line.baud, self.baud()
        if baud is None or abs(own / baud - 1) <= TOLERANCE:
            return True
        self.machine.refuse(f"{self.name}: {own:.0f} baud where the line has {baud}")
        return False

    def poll(self) -> None:
        """Takes the next character from the line, if one may come."""
        if self.arriving or not self.receives():
            return
        if self.line.baud is None and len(self.received) >= self.depth:
            return
        byte = self.line.next()
        if byte is not None:
            self.arriving = True
            self.machine.after(self.character(), lambda: self.arrive(byte))

    def arrive(self, byte: int) -> None:
        self.arriving = False
        if not self.understood():
            byte, self.framing = self.machine.random.randrange(256), True
        if len(self.received) >= self.depth:
            self.overrun = True
            self.machine.refuse(f"{self.name}: a character is lost, as the last has not been read (overrun)")
        else:
            self.received.append(byte)
        self.poll()
        self.changed()

    def take(self) -> int:
        """The character that was received first; 0: none."""
        byte = self.received.popleft() if self.received else 0
        self.poll()
        self.changed()
        return byte

    def send(self, byte: int, depth: int = 1) -> None:
        if len(self.to_send) >= depth:
            self.machine.refuse(f"{self.name}: a character is written while there is no room for it")
            return
        self.to_send.append(byte)
        self.shift()
        self.changed()

    def shift(self) -> None:
        if not self.sending and self.to_send:
            self.sending = True
            byte = self.to_send.popleft()
            self.machine.after(self.character(), lambda: self.shifted(byte))

    def shifted(self, byte: int) -> None:
        self.sending = False
        self.line.arrive(byte if self.understood() else self.machine.random.randrange(256))
        self.shift()
        self.changed()

    def wait(self) -> None:
        """A status register is read while a character leaves: a loop that asks need not be run in full."""
        if self.sending:
            self.machine.spin(self.character() // 16)
