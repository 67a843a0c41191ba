# SPDX-License-Identifier: Apache-2.0
"""A board with its image, and the host's end of its line in the same process: no clock but the part's."""

from __future__ import annotations

import math
from pathlib import Path

from medyate.run.link import Link
from medyate.run.session import Session

from .image import Image
from .machine import Machine
from .parts import PARTS
from .uart import Line

SECONDS = 10.0
"""Of the part's time, that it may take to answer: longer than any commit."""


class Direct:
    """Transport of a link: the part runs while the host waits for bytes."""

    buffered = False
    bytes_per_second = math.inf

    def __init__(self, machine: Machine, line: Line) -> None:
        self.machine, self.line = machine, line
        self.resets = machine.resets
        """When something was sent last."""

    def write(self, data: bytes) -> None:
        """Sends all bytes."""
        self.resets = self.machine.resets
        self.line.put(data)

    def read(self, timeout: float) -> bytes:
        """What the part says next; nothing if it is silent or has restarted. Raises BoardError, PowerCut."""
        machine, resets = self.machine, self.machine.resets
        is_lost = resets != self.resets or self.line.bad > 0.0  # then it is asked again
        seconds = timeout if is_lost else SECONDS
        machine.run(machine.cycles(seconds * 1e6), lambda: bool(self.line.sent) or machine.resets != resets)
        data = bytes(self.line.sent)
        self.line.sent.clear()
        return data


class Attached:
    """A part by its board's name, with an image in its flash."""

    def __init__(self, name: str, image: Path, baud: int | None = None, bad: float = 0.0) -> None:
        """`baud` and `bad`: of its line."""
        part = PARTS[name]
        self.line = Line(baud, bad)
        self.machine = part.model({part.uarts[0]: self.line}, crystal=part.crystal)
        self.cells = self.machine.cells
        self.cells.load(Image.read(image))

    def power_on(self) -> Session:
        """Power comes (again); what was on the line is gone."""
        self.line.waiting.clear()
        self.line.sent.clear()
        self.machine.power_on()
        return Session(Link(Direct(self.machine, self.line), clock=lambda: self.machine.microseconds / 1e6))
