# SPDX-License-Identifier: Apache-2.0
"""Exceptions of the emulated cores: entry, return, priorities, masks, stacks, floats."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from boards.bare import Target, build
from boards.image import Image
from boards.machine import BoardError, Machine
from boards.nrf52840 import Nrf52840
from boards.rp2350 import Rp2350
from boards.stm32f4 import F405
from boards.stm32f7 import F746
from boards.stm32h7 import H743

F4 = Target("cortex-m4", 0x08000000, 0x20000000, 0x20008000)
H7 = Target("cortex-m7", 0x08000000, 0x24000000, 0x20010000)
NRF = Target("cortex-m4", 0, 0x20000000, 0x20008000)
F7 = Target("cortex-m7", 0x08000000, 0x20010000, 0x20008000)
RP = Target("cortex-m33", 0x10000000, 0x20000000, 0x20080000, ("IMAGE_DEF",))
CASES: dict[str, tuple[Target, Callable[[], Machine]]] = {
    "f405": (F4, F405),
    "f746": (F7, F746),
    "h743": (H7, H743),
    "nrf52840": (NRF, Nrf52840),
    "rp2350": (RP, Rp2350),
}


def start(machine: Machine, elf: Path) -> Callable[[str], int]:
    """The image in flash, power on; reads its variables."""
    image = Image.read(elf)
    machine.cells.load(image)
    machine.power_on()
    return lambda name: int(struct.unpack("<I", machine.peek(image.symbols[name], 4))[0])


@pytest.mark.parametrize("part", CASES)
def test_exceptions(part: str, tmp_path: Path) -> None:
    target, make = CASES[part]
    machine = make()
    word = start(machine, build("exceptions", target, tmp_path))
    assert machine.run(20_000_000, lambda: word("done") in (1, 99)), hex(machine.pc)
    assert word("done") == 1
    assert word("tick_ipsr") == 15
    assert word("flags_kept")
    assert word("ticks_meanwhile") > 1000
    assert word("disturbed") == word("undisturbed")
    assert (word("calls"), word("svc_ipsr"), word("pendsvs")) == (1, 11, 1)
    at = Image.read(tmp_path / "exceptions.elf").symbols["order"]
    assert struct.unpack("<6I", machine.peek(at, 24)) == (11, 12, 10, 11, 12, 10)
    assert (word("preempted"), word("odd_stack")) == (0, 1)
    assert (word("nested"), word("icsr_active")) == (1, 26)
    assert word("basepri_low") == 0
    assert word("basepri_after") == 3
    assert (word("masked_ticks"), word("counted")) == (0, 1)
    assert word("late_ticks") >= 1
    assert word("psp_ticks") == 3
    assert (word("psp_kept"), word("msp_after")) == (1, 1)
    assert word("slept") == 5
    assert 9_500 <= word("cycles") <= 10_500
    assert not machine.refusals


@pytest.mark.parametrize("part", CASES)
def test_floats_before_the_fpu_is_on(part: str, tmp_path: Path) -> None:
    target, make = CASES[part]
    machine = make()
    start(machine, build("exceptions", target, tmp_path, "NO_FPU"))
    with pytest.raises(BoardError, match="a float instruction before CPACR allows it"):
        machine.run(1_000_000)
