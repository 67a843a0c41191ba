# SPDX-License-Identifier: Apache-2.0
"""The applications with a scripted sensor and button at the end of the line (firmware/apps/common/line.c)."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medyate.boards import MACHINES
from medyate.run.transport import emulator

NO_LABEL = 0xFFFF
INFERRED, TRAINED, COMMITTED, REFUSED = range(4)
"""As in hardware.h."""
READY = bytes((4, 0, 0, 0))
"""What line.c asks for a sample with."""
SECONDS = 600


@dataclass(frozen=True)
class Shown:
    """What the application showed."""

    event: int
    status: int
    prediction: int


@dataclass(frozen=True)
class Turn:
    """A sample, the button that is down, and how many samples ago its own was."""

    sample: NDArray[np.int8]
    label: int = NO_LABEL
    age: int = 0

    def message(self) -> bytes:
        return struct.pack("<HH", self.label, self.age) + self.sample.tobytes()


def script(turns: Iterable[Turn]) -> bytes:
    return b"".join(turn.message() for turn in turns)


def shown(answers: bytes) -> list[Shown]:
    events = [answers[at : at + 4] for at in range(0, len(answers), 4)]
    return [Shown(*struct.unpack("<BbH", event)) for event in events if event != READY]


def looked_at(x: NDArray[np.int8]) -> list[Turn]:
    """Samples while no button is down."""
    return [Turn(sample) for sample in x]


def taught(x: NDArray[np.int8], y: Sequence[int], burst: int = 8, pause: int = 2) -> list[Turn]:
    """The button is held for `burst` samples; then it is up for `pause`."""
    turns: list[Turn] = []
    for at, (sample, label) in enumerate(zip(x, y, strict=True), 1):
        turns.append(Turn(sample, int(label)))
        turns += [Turn(sample)] * pause if at % burst == 0 else []
    return turns


def in_qemu(image: Path, target: str, folder: Path, turns: Iterable[Turn]) -> list[Shown]:
    """What an image shows from power-on until the script ends; `folder` keeps its flash."""
    return shown(in_qemu_raw(image, target, folder, script(turns)))


def in_qemu_raw(image: Path, target: str, folder: Path, line: bytes) -> bytes:
    """What an image sends where it receives `line` and then nothing more."""
    folder.mkdir(exist_ok=True)
    (folder / "link.in").write_bytes(line)
    (folder / "link.out").write_bytes(b"")
    command = [emulator(), "-M", MACHINES[target], "-display", "none", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image.resolve())]
    subprocess.run(command, cwd=folder, check=True, timeout=SECONDS, capture_output=True)
    return (folder / "link.out").read_bytes()


def on_host(image: Path, folder: Path, turns: Iterable[Turn], **faults: str) -> list[Shown]:
    """Likewise on this machine; `faults` of its flash, as ports/host/port.c names them."""
    return shown(on_host_raw(image, folder, script(turns), **faults))


def on_host_raw(image: Path, folder: Path, line: bytes, **faults: str) -> bytes:
    """What a program of this machine sends, likewise."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "MDY_FLASH_FILE": str(folder / "flash.bin"), **faults}
    return subprocess.run([image], input=line, env=environment, check=True, capture_output=True).stdout


def right(events: Sequence[Shown], y: Sequence[int]) -> float:
    """Share of right predictions of the inferences among the events, one for each label."""
    predictions = [event.prediction for event in events if event.event == INFERRED]
    assert len(predictions) == len(y)
    return float(np.mean(np.array(predictions) == np.array(y)))
