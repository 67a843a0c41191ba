# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.boards.serve`: a process with a pseudo-terminal, as `medyate run --on serial:PATH` wants it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from boards.bare import Target, build
from boards.served import serve

TARGET = Target("cortex-m4", 0x08000000, 0x20000000, 0x20008000)


def test_a_part_serves_a_pseudo_terminal_until_it_is_ended(tmp_path: Path) -> None:
    elf = build("echo", TARGET, tmp_path, 'UART_HEADER="uart_stm32f4.h"', "BAUD=115200")
    flash = tmp_path / "cells"
    process = serve("stm32f405", elf, "--flash", flash)
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


def test_power_is_cut_and_comes_back(tmp_path: Path) -> None:
    elf, flash = build("commit", TARGET, tmp_path), tmp_path / "cells"
    with serve("stm32f405", elf, "--flash", flash, "--cut", 3) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert lines[1] == "power cut"
    assert json.loads(lines[2])["operations"] == 3
    held = flash.read_bytes()[0x20000:0x20010]
    assert (held[:4], held[8:]) == (b"\1\0\0\0", b"\xff" * 8)
    assert held[4:8] not in (b"\2\0\0\0", b"\xff" * 4)
    with serve("stm32f405", elf, "--flash", flash) as process:
        assert process.stdout is not None
        path = process.stdout.readline().split()[1]
        host = os.open(path, os.O_RDWR | os.O_NOCTTY)
        assert os.read(host, 1) == b"."
        os.close(host)
        process.terminate()
        report = json.loads(process.stdout.readline())
    assert report["erases"] == {"5": 1}
    assert report["programs"] == 4
    assert report["flash_typical_us"] == 1000e3 + 4 * 16
    assert flash.read_bytes()[0x20000:0x20010] == b"".join(n.to_bytes(4, "little") for n in (1, 2, 3, 4))
