# SPDX-License-Identifier: Apache-2.0
"""`medyate flash` calls what is there and says what is missing; UF2 files hold what the format asks for."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from medyate.boards import BOARDS
from medyate.build import flashing
from medyate.build.flashing import PROGRAMMERS, command, run
from medyate.errors import DataError, ToolchainError
from shared_files import ROOT

sys.path.append(str(ROOT / "firmware" / "platform"))
from uf2 import uf2

CHIPS = [name for name, board in BOARDS.items() if board.is_real]


def here(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Only these programs are on the PATH, and none beside Python."""
    for name in names:
        (folder / name).write_text("#!/bin/sh\nexit 3\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(folder / "core"))
    monkeypatch.setattr(flashing.sys, "executable", str(folder / "nowhere" / "python"))


@pytest.mark.parametrize("name", CHIPS)
def test_without_a_programmer_it_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here(monkeypatch, tmp_path)
    with pytest.raises(ToolchainError, match=f"no program that writes to {name} is installed") as raised:
        command(BOARDS[name], tmp_path / "firmware.elf", tmp_path, None)
    assert "pip install pyocd" in raised.value.remedy
    with pytest.raises(ToolchainError, match="'pyocd' is not installed"):
        command(BOARDS[name], tmp_path / "firmware.elf", tmp_path, "pyocd")


def test_the_first_that_is_there_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here(monkeypatch, tmp_path, "openocd")
    image = tmp_path / "firmware.elf"
    assert command(BOARDS["stm32f405"], image, tmp_path, None) == [
        str(tmp_path / "openocd"),
        *("-f", "interface/stlink.cfg", "-f", "target/stm32f4x.cfg"),
        *("-c", f"program {{{image}}} verify reset exit"),
    ]
    with pytest.raises(DataError, match="picotool does not write to stm32f405"):
        command(BOARDS["stm32f405"], image, tmp_path, "picotool")


def test_a_pico_is_written_with_picotool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here(monkeypatch, tmp_path, "picotool")
    line = command(BOARDS["rp2350"], tmp_path / "firmware.elf", tmp_path, None)
    assert line[1:] == ["load", "--verify", "--execute", str(tmp_path / "firmware.uf2")]


def test_platformio_is_called_where_its_platform_is_there_or_on_demand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here(monkeypatch, tmp_path)
    line = command(BOARDS["stm32f746"], tmp_path / "firmware.elf", tmp_path, "platformio")
    assert line[1:] == ["-m", "platformio", "run", "-d", str(tmp_path), "-e", "stm32f746-public", "-t", "upload"]
    (tmp_path / "core" / "platforms" / "ststm32").mkdir(parents=True)
    assert command(BOARDS["stm32f746"], tmp_path / "firmware.elf", tmp_path, None) == line


def test_a_programmer_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here(monkeypatch, tmp_path, "openocd")
    with pytest.raises(ToolchainError, match=r"openocd did not write the board \(status 3\)"):
        run(command(BOARDS["stm32f405"], tmp_path / "firmware.elf", tmp_path, None))


def test_the_real_pyocd_finds_no_probe_and_that_is_told(tmp_path: Path) -> None:
    """PyOCD itself, which the test tools bring: it takes the command line, and no probe is attached."""
    (tmp_path / "firmware.hex").write_text(":00000001FF\n")
    line = command(BOARDS["nrf52840"], tmp_path / "firmware.elf", tmp_path, "pyocd")
    with pytest.raises(ToolchainError, match="pyocd did not write the board"):
        run([*line[:2], "--no-wait", *line[2:]])


def test_every_board_names_programmers_that_are_known() -> None:
    for name in CHIPS:
        build = BOARDS[name].build
        assert build is not None
        assert set(build.flashers) <= set(PROGRAMMERS) - {"platformio"}
        assert set(build.public) == {"platform", "board", "upload_protocol"}


def test_a_uf2_file_has_the_blocks_of_the_format() -> None:
    image = bytes(range(256)) + b"\x11" * 10
    made = uf2(image, 0x10000000, 0xE48BFF59)
    assert len(made) == 2 * 512
    for number in range(2):
        block = made[512 * number : 512 * (number + 1)]
        head = struct.unpack_from("<8I", block)
        assert head == (0x0A324655, 0x9E5D5157, 0x2000, 0x10000000 + 256 * number, 256, number, 2, 0xE48BFF59)
        assert struct.unpack_from("<I", block, 508) == (0x0AB16F30,)
    assert made[32 : 32 + 256] == image[:256]
    assert made[544 : 544 + 256] == image[256:].ljust(256, b"\xff")
