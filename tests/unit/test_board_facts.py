# SPDX-License-Identifier: Apache-2.0
"""What the boards' records and ports say of the chips, against two public databases: modm-devices and pyOCD.

Both list the RP2040's memory for the RP2350, so that its RAM is compared with nothing.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import modm_devices
import pytest
from modm_devices.parser import DeviceParser
from pyocd.core.memory_map import MemoryType
from pyocd.target.builtin import BUILTIN_TARGETS

from medyate.boards import BOARDS
from shared_files import ROOT

DEVICES = Path(modm_devices.__file__).parent / "resources" / "devices"
PARTS = {
    "stm32f405": ("stm32/stm32f4-05_07_15_17.xml", "stm32f405rgt6"),
    "stm32f411": ("stm32/stm32f4-01_11.xml", "stm32f411ceu6"),
    "stm32f746": ("stm32/stm32f7-45_46_50_56.xml", "stm32f746zgt6"),
    "stm32h743": ("stm32/stm32h7-42_43_50_53.xml", "stm32h743zit6"),
    "nrf52840": ("nrf/nrf52820_840.xml", "nrf52840-qiaa"),
    "rp2350": ("rp/rp2350.xml", "rp2350"),
}
"""File and name in modm-devices."""
NO_DATA = ("flash", "itcm", "code", "backup")
"""Memories that hold no data of a program, by the start of their names."""
RELATIVES = {"stm32f405": "stm32f429xi", "stm32f411": "stm32f412xe", "stm32f746": "stm32f767zi"}
"""Parts with the same first sectors, where pyOCD needs a pack for the part itself."""


@cache
def device(board: str) -> Any:
    file, name = PARTS[board]
    (found,) = [d for d in DeviceParser().parse(str(DEVICES / file)).get_devices() if d.identifier.string == name]
    return found


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(address, bytes), those that follow each other as one."""
    found: list[tuple[int, int]] = []
    for start, size in sorted(spans):
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + size)
        else:
            found.append((start, size))
    return found


def memories(board: str) -> list[tuple[str, int, int]]:
    listed = device(board).get_driver("core")["memory"]
    return [(m["name"], int(m["start"], 0), int(m["size"])) for m in listed]


def test_every_chip_is_compared() -> None:
    assert set(PARTS) == {name for name, board in BOARDS.items() if board.flash is not None}


@pytest.mark.parametrize("name", [name for name in PARTS if name != "rp2350"])
def test_ram_and_flash_are_those_that_modm_lists(name: str) -> None:
    board = BOARDS[name]
    ram = [(start, size) for kind, start, size in memories(name) if not kind.startswith(NO_DATA)]
    assert merged([(area.address, area.bytes) for area in board.areas]) == merged(ram)
    flash = [(start, size) for kind, start, size in memories(name) if re.fullmatch(r"flash\d?", kind)]
    assert board.flash is not None
    assert merged(flash) == [(board.flash.address, board.flash.bytes)]


@pytest.mark.parametrize("name", PARTS)
def test_sectors_are_those_that_pyocd_lists(name: str) -> None:
    flash = BOARDS[name].flash
    assert flash is not None
    key = {**RELATIVES, "stm32h743": "stm32h743xx"}.get(name, name)
    listed = [r for r in BUILTIN_TARGETS[key].MEMORY_MAP.regions if r.type == MemoryType.FLASH]
    sectors = [
        (address, region.blocksize)
        for region in listed
        for address in range(region.start, region.end + 1, region.blocksize)
        if flash.address <= address < flash.address + flash.bytes
    ]
    assert [(address, run.bytes) for address, run in flash.sectors] == sectors


@pytest.mark.parametrize("name", PARTS)
def test_the_interrupt_is_that_of_the_uart(name: str) -> None:
    build = BOARDS[name].build
    assert build is not None
    uart = BOARDS[name].facts["uart"].partition(":")[0]
    vectors = {v["name"]: int(v["position"]) for v in device(name).get_driver("core")["vector"]}
    (position,) = [at for title, at in vectors.items() if title.split("_")[0] == uart]
    assert f"MDY_UART_IRQ={position}" in build.defines


@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith("stm32")])
def test_pins_carry_the_uart(name: str) -> None:
    usart, pins = re.fullmatch(r"USART(\d): (.*?); .*", BOARDS[name].facts["uart"]).groups()  # type: ignore[union-attr]
    found = re.findall(r"P([A-D])(\d+) is (TX|RX)", pins)
    assert len(found) == 2
    ports = {(pin["port"], pin["pin"]): pin.get("signal", []) for pin in device(name).get_driver("gpio")["gpio"]}
    for port, number, line in found:
        wanted = {"driver": "usart", "instance": usart, "name": line.lower(), "af": "7"}
        assert wanted in ports[port.lower(), number]
        code = (ROOT / "firmware" / "boards" / name / "board.c").read_text()
        assert f"mdy_stm32_alternate(GPIO{port}, {number}U, AF_USART{usart});" in code
        assert f"#define AF_USART{usart} 7U" in code


@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith("stm32f")])
def test_wait_states_suffice_for_the_clock(name: str) -> None:
    build = BOARDS[name].build
    assert build is not None
    states = device(name).get_driver("flash")["latency"]
    (at_3_volts,) = [level["wait-state"] for level in states if level["vcore-min"] == "2700"]
    needed = next(int(s["ws"]) for s in at_3_volts if int(s["hclk-max"]) >= build.clock_hz)
    code = (ROOT / "firmware" / "boards" / name / "board.c").read_text()
    (taken,) = re.findall(r"#define ACR_LATENCY_(\d) \1U", code)
    assert (
        needed <= int(taken) <= needed + 1
    )  # the F746's table ends at 216 MHz, where RM0385 takes one more from 210 on
    assert f".core_mhz = {build.clock_hz // 1_000_000}U" in code


def test_wait_states_of_the_h743_suffice_for_its_bus() -> None:
    states = device("stm32h743").get_driver("flash")["latency"]
    lowest = min(int(level["vcore-min"]) for level in states if int(level["vcore-min"]) > 1_150)  # scale 1
    (table,) = [level["wait-state"] for level in states if int(level["vcore-min"]) == lowest]
    assert next(int(s["ws"]) for s in table if int(s["hclk-max"]) >= 200_000_000) == 2
    assert "#define ACR_200_MHZ (2U | 2U << 4)" in (ROOT / "firmware/boards/stm32h743/board.c").read_text()


def test_sectors_grow_with_their_times() -> None:
    for board in BOARDS.values():
        for first, second in pairwise(board.flash.runs if board.flash else ()):
            assert first.bytes < second.bytes and first.erase_max_ms < second.erase_max_ms
