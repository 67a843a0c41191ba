# SPDX-License-Identifier: Apache-2.0
"""The system control space: which exception is taken next, SysTick, the cycle counter (Armv7-M, B1.5, B3, C1.8).

Registers without an entry here keep what they are given: caches, MPU, FPCCR, ITM and the like do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import unicorn.arm_const as arm

from .machine import BUS_FAULT, HARD_FAULT, MASKS, PENDSV, SYSTICK, Block, BoardError, Event, Machine

PRECISERR, IMPRECISERR, BFARVALID = 1 << 9, 1 << 10, 1 << 15
"""CFSR, Armv7-M B3.2.15."""


class System(Block):
    """0xE0000000 to 0xE00FFFFF."""

    name = "SCS"
    CSR, RVR, CVR = 0xE010, 0xE014, 0xE018
    ISER, ICER, ISPR, ICPR, IABR, IPR = 0xE100, 0xE180, 0xE200, 0xE280, 0xE300, 0xE400
    CPUID, ICSR, VTOR, AIRCR, CCR, SHPR, SHCSR = 0xED00, 0xED04, 0xED08, 0xED0C, 0xED14, 0xED18, 0xED24
    CFSR, HFSR, BFAR, CPACR, DEMCR = 0xED28, 0xED2C, 0xED38, 0xED88, 0xEDFC
    DWT_CTRL, CYCCNT = 0x1000, 0x1004

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, 0xE0000000, 0x100000)
        self.values = {
            self.CCR: 0x200,
            self.CPUID: machine.core.cpuid,
            self.AIRCR: 0xFA050000,
            self.DWT_CTRL: 0x40000000,
        }
        self.enabled: set[int] = set()
        """Interrupts by exception number, from 16."""
        self.pended: set[int] = set()
        self.active: list[int] = []
        self.tick_zero = 0
        """When SysTick counts to 0 next."""
        self.tick_event: Event | None = None
        self.counted = False
        self.cycles_from = 0
        self.loads: dict[int, Callable[[], int]] = {
            self.CVR: self.load_cvr,
            self.CSR: self.load_csr,
            self.CYCCNT: self.load_cyccnt,
            self.ICSR: self.load_icsr,
        }
        self.stores: dict[int, Callable[[int], None]] = {
            self.CVR: self.store_cvr,
            self.CSR: self.store_csr,
            self.RVR: self.store_rvr,
            self.CYCCNT: self.store_cyccnt,
            self.ICSR: self.store_icsr,
            self.AIRCR: self.store_aircr,
            self.CFSR: lambda value: self.clear(self.CFSR, value),
            self.HFSR: lambda value: self.clear(self.HFSR, value),
            self.DWT_CTRL: lambda value: self.store_counting(self.DWT_CTRL, value),
            self.DEMCR: lambda value: self.store_counting(self.DEMCR, value),
            self.CPUID: lambda _: self.refuse("CPUID is written"),
        }

    # Exceptions.

    def priority(self, number: int) -> int:
        """Lower is more urgent; -2 and -1 are those of NMI and HardFault."""
        if number <= HARD_FAULT:
            return number - 4
        bits = self.machine.core.priority_bits
        at = self.IPR + number - 16 if number >= 16 else self.SHPR + number - 4
        return (self.values.get(at & ~3, 0) >> (at & 3) * 8 & 0xFF) >> 8 - bits << 8 - bits

    def running(self) -> int:
        """The priority that the core runs at: an exception of a lower number is taken."""
        basepri, primask, faultmask = MASKS.read(self.machine.uc)
        levels = [256, *map(self.priority, self.active)]
        if basepri:
            levels.append(basepri)
        if primask:
            levels.append(0)
        if faultmask:
            levels.append(-1)
        return min(levels)

    def waiting(self) -> list[tuple[int, int]]:
        """Exceptions that are pending and enabled, as (priority, number), the most urgent first."""
        ready = self.pended | {line + 16 for line in self.machine.lines}
        return sorted((self.priority(n), n) for n in ready if n not in self.active and (n < 16 or n in self.enabled))

    def take(self) -> int | None:
        """The exception to enter now; it is no longer pending then."""
        waiting = self.waiting()
        if not waiting or waiting[0][0] >= self.running():
            return None
        number = waiting[0][1]
        self.pended.discard(number)
        return number

    def wakes(self) -> bool:
        """Whether WFI ends: PRIMASK does not count (B1.5.19)."""
        waiting = self.waiting()
        return bool(waiting) and bool(
            self.machine.uc.reg_read(arm.UC_ARM_REG_PRIMASK) or waiting[0][0] < self.running()
        )

    # Faults.

    def bus_fault(self, address: int | None) -> None:
        """A bus error: precise at `address`, or of a store that the core no longer waits for."""
        flags = IMPRECISERR if address is None else PRECISERR | BFARVALID
        self.values[self.CFSR] = self.values.get(self.CFSR, 0) | flags
        if address is not None:
            self.values[self.BFAR] = address
        if self.values.get(self.SHCSR, 0) & 1 << 17 and self.priority(BUS_FAULT) < self.running():
            self.pended.add(BUS_FAULT)
        elif self.running() <= -1:
            raise BoardError(f"lockup: a bus fault in a fault handler (pc {self.machine.pc:#010x}).", "Look there.")
        else:
            self.values[self.HFSR] = self.values.get(self.HFSR, 0) | 1 << 30
            self.pended.add(HARD_FAULT)
        self.machine.look()

    def fault_pending(self) -> bool:
        return bool(self.pended & {BUS_FAULT, HARD_FAULT})

    def ignores_bus_faults(self) -> bool:
        """CCR.BFHFNMIGN with FAULTMASK, or in a fault handler (B3.2.8)."""
        return bool(self.values.get(self.CCR, 0) & 0x100) and self.running() <= -1

    def check_fpu(self) -> None:
        """CONTROL.FPCA says that floats were computed. Unicorn's FPU is always on: the part's is not."""
        if self.values.get(self.CPACR, 0) >> 20 & 15 != 15 and self.machine.uc.reg_read(arm.UC_ARM_REG_CONTROL) & 4:
            raise BoardError(
                f"a float instruction before CPACR allows it (near pc {self.machine.pc:#010x}).",
                "Set CP10 and CP11 first (Armv7-M, B3.2.20).",
            )

    # SysTick. The external reference is HCLK / 8 on STM32 parts.

    def divisor(self) -> int:
        return 1 if self.values.get(self.CSR, 0) & 4 else 8

    def tick_period(self) -> int:
        return (self.values.get(self.RVR, 0) + 1) * self.divisor()

    def tick_start(self) -> None:
        if self.tick_event is not None:
            self.tick_event.off = True
            self.tick_event = None
        if self.values.get(self.CSR, 0) & 1 and self.values.get(self.RVR, 0):
            self.tick_zero = self.machine.now + self.tick_period()
            self.tick_event = self.machine.after(self.tick_period(), self.tick)

    def tick(self) -> None:
        self.counted = True
        if self.values.get(self.CSR, 0) & 2:
            self.pended.add(SYSTICK)
        self.tick_zero += self.tick_period()
        self.tick_event = self.machine.after(max(1, self.tick_zero - self.machine.now), self.tick)

    def late_ticks(self) -> None:
        """Ticks that are due, where the core looks before the run loop does."""
        while self.tick_event is not None and self.tick_zero <= self.machine.now:
            self.tick_event.off = True
            self.tick()

    def load_cvr(self) -> int:
        self.late_ticks()
        return 0 if self.tick_event is None else (self.tick_zero - self.machine.now) // self.divisor() & 0xFFFFFF

    def load_csr(self) -> int:
        self.late_ticks()
        counted, self.counted = self.counted, False
        return self.values.get(self.CSR, 0) | counted << 16

    def store_cvr(self, _value: int) -> None:
        self.counted = False
        self.tick_start()

    def store_csr(self, value: int) -> None:
        was = self.values.get(self.CSR, 0)
        self.values[self.CSR] = value & 7
        if (was ^ value) & 5:
            self.tick_start()

    def store_rvr(self, value: int) -> None:
        self.values[self.RVR] = value & 0xFFFFFF

    # DWT.

    def counts(self) -> bool:
        return bool(self.values.get(self.DEMCR, 0) & 1 << 24 and self.values.get(self.DWT_CTRL, 0) & 1)

    def load_cyccnt(self) -> int:
        if self.counts():
            return self.machine.now - self.cycles_from & 0xFFFFFFFF
        return self.values.get(self.CYCCNT, 0)

    def store_cyccnt(self, value: int) -> None:
        self.values[self.CYCCNT], self.cycles_from = value, self.machine.now - value

    def store_counting(self, offset: int, value: int) -> None:
        stopped = self.load_cyccnt()
        self.values[offset] = value
        self.store_cyccnt(stopped)

    # NVIC and SCB.

    def load_icsr(self) -> int:
        waiting = self.waiting()
        value = (self.active[-1] if self.active else 0) | (waiting[0][1] << 12 if waiting else 0)
        return value | (SYSTICK in self.pended) << 26 | (PENDSV in self.pended) << 28

    def store_icsr(self, value: int) -> None:
        for bit, number, on in ((28, PENDSV, True), (27, PENDSV, False), (26, SYSTICK, True), (25, SYSTICK, False)):
            if value >> bit & 1:
                (self.pended.add if on else self.pended.discard)(number)

    def store_aircr(self, value: int) -> None:
        if value >> 16 != 0x05FA:
            self.refuse("AIRCR is written without its key")
        elif value & 4:
            self.machine.reset_part()
        else:
            self.values[self.AIRCR] = 0xFA050000 | value & 0xFFFF

    def clear(self, offset: int, value: int) -> None:
        """Flags that a 1 clears."""
        self.values[offset] = self.values.get(offset, 0) & ~value

    def interrupts(self, bank: int) -> set[int] | None:
        """The exceptions that a bank of 16 words shows; None: it is no such bank."""
        if bank in (self.ISER, self.ICER):
            return self.enabled
        if bank in (self.ISPR, self.ICPR):
            return self.pended | {line + 16 for line in self.machine.lines}
        return set(self.active) if bank == self.IABR else None

    def fetch(self, offset: int) -> int:
        if offset in self.loads:
            return self.loads[offset]()
        shown = self.interrupts(offset & ~0x7F)
        if shown is None:
            return self.values.get(offset, 0)
        first = (offset & 0x7F) * 8 + 16
        return self.bits(number - first for number in shown if first <= number < first + 32)

    @staticmethod
    def bits(numbers: Iterable[int]) -> int:
        return sum(1 << number for number in numbers)

    def store(self, offset: int, value: int) -> None:
        first = (offset & 0x7F) * 8 + 16
        numbers = {first + n for n in range(32) if value >> n & 1}
        match offset & ~0x7F:
            case self.ISER:
                self.enabled |= numbers
            case self.ICER:
                self.enabled -= numbers
            case self.ISPR:
                self.pended |= numbers
            case self.ICPR:
                self.pended -= numbers
            case _:
                self.stores.get(offset, lambda v: self.values.update({offset: v}))(value)
        self.machine.look()
