# SPDX-License-Identifier: Apache-2.0
"""Runs an image on an emulated part until it is killed; its UART is a pseudo-terminal.

    python -m tests.boards.serve stm32f405 firmware.elf [--flash cells.bin] [--uart USART1] [--baud 115200]

Prints `serial PATH` first. The flash holds the image; with --flash, what the file holds (and the image over it), and
the file is written at the end. SIGHUP is the reset button. Ends on SIGTERM or SIGINT with one line of JSON:
operations, times, refusals.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from medyate.errors import MedyateError

from .flash import BEFORE, INSIDE
from .image import Image
from .machine import Machine, PowerCut
from .parts import PARTS
from .uart import PtyLine


def report(machine: Machine) -> str:
    cells = machine.cells
    return json.dumps(
        {
            "microseconds": round(machine.microseconds),
            "operations": cells.operations,
            "erases": dict(sorted(cells.erases.items())),
            "programs": cells.programs,
            "flash_typical_us": round(cells.typical_us),
            "flash_maximum_us": round(cells.maximum_us),
            "resets": machine.resets,
            "refusals": dict(machine.refusals),
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("image", type=Path)
    parser.add_argument("--flash", type=Path)
    parser.add_argument("--uart", help="the first one of the part, unless given")
    parser.add_argument("--baud", type=int, help="rate of the line; without it, the line waits for the part")
    parser.add_argument("--bad", type=float, default=0.0, help="share of bytes that arrive as others")
    parser.add_argument("--crystal", type=float, help="in Hz")
    parser.add_argument("--dead", action="append", default=[], help="an oscillator that never gets ready: HSE")
    parser.add_argument("--slow", action="store_true", help="the flash takes its largest times, not its typical ones")
    parser.add_argument("--cut", type=int, default=0, help="the operation of the flash in which power goes, from 1")
    parser.add_argument("--cut-before", action="store_true", help="power goes before it")
    asked = parser.parse_args()
    part = PARTS[asked.part]
    line = PtyLine(asked.baud, asked.bad)
    machine = part.model({asked.uart or part.uarts[0]: line}, crystal=asked.crystal or part.crystal, dead=asked.dead)
    cells = machine.cells
    cells.slow, cells.cut_at, cells.cut_phase = asked.slow, asked.cut, BEFORE if asked.cut_before else INSIDE
    if asked.flash is not None and asked.flash.exists():
        cells.read_file(asked.flash)
    cells.load(Image.read(asked.image))

    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))

    def is_ended() -> bool:
        while signal.SIGHUP in signals:
            signals.remove(signal.SIGHUP)
            machine.reset_part()
        return bool(signals)

    machine.wait = line.wait
    print("serial", line.path, flush=True)
    code = 0
    try:
        machine.power_on()
        machine.run(until=is_ended)
        cells.cut()
    except PowerCut:
        print("power cut", flush=True)
    except MedyateError as error:
        print(error, file=sys.stderr)
        code = 1
    if asked.flash is not None:
        cells.write_file(asked.flash)
    print(report(machine), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
