# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.boards.serve`: a process with a pseudo-terminal, as `medyate run --on serial:PATH` wants it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from boards.bare import Target, build

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_part_serves_a_pseudo_terminal_until_it_is_ended(tmp_path: Path) -> None:
    target = Target("cortex-m4", 0x08000000, 0x20000000, 0x20008000)
    elf = build("echo", target, tmp_path, 'UART_HEADER="uart_stm32f4.h"', "BAUD=115200")
    flash = tmp_path / "cells"
    command = [sys.executable, "-m", "tests.boards.serve", "stm32f405", str(elf), "--flash", str(flash)]
    paths = os.pathsep.join(filter(None, (str(REPOSITORY / "compiler"), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": paths})  # fmt: skip
    assert process.stdout is not None
    with process, process.stdout:
        try:
            path = process.stdout.readline().split()[1]
            host = os.open(path, os.O_RDWR | os.O_NOCTTY)
            os.write(host, b"HAL")
            echoed = b""
            while len(echoed) < 3:
                echoed += os.read(host, 3)
            assert echoed == b"IBM"
            os.close(host)
        finally:
            process.terminate()
        report = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert report["refusals"] == {}
    assert flash.stat().st_size == 1 << 20
