# SPDX-License-Identifier: Apache-2.0
"""The emulated parts by the name of the board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .machine import Machine
from .nrf52840 import Nrf52840
from .rp2350 import Rp2350
from .stm32f4 import F405, F411
from .stm32f7 import F746
from .stm32h7 import H743


@dataclass(frozen=True)
class Part:
    """A part: its model, the crystal of the usual board in Hz, and the UART that the board's port speaks through."""

    model: Callable[..., Machine]
    crystal: float
    uarts: tuple[str, ...]


PARTS = {
    "stm32f405": Part(F405, 8e6, ("USART1", "USART2", "USART3", "USART6")),
    "stm32f411": Part(F411, 25e6, ("USART1", "USART2", "USART6")),
    "stm32f746": Part(F746, 8e6, ("USART3", "USART1", "USART2", "USART6")),
    "stm32h743": Part(H743, 8e6, ("USART3", "USART1", "USART2", "USART6")),
    "nrf52840": Part(Nrf52840, 32e6, ("UART0", "UART1")),
    "rp2350": Part(Rp2350, 12e6, ("UART0", "UART1")),
}
