# SPDX-License-Identifier: Apache-2.0
"""Faults of the flash, drawn at random, and what the real runtime makes of them.

A small network is trained for a few epochs without a fault: those generations are the only right ones. Each trial
starts from the second of them, trains and commits under one fault, starts again, and goes on to the last. A generation
that is none of them, and one that was said to be kept and is gone without a word, are silent corruptions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from machine import AFTER, IGNORED, INSIDE, OK, WRONG, Machine
from medyate.datasets import epoch_order
from medyate.ledger import BANK_HEADER_BYTES
from shared_files import Samples

LAST = 4
START = 2
"""Generations START - 1 and START lie in the two banks when a trial begins."""
EPOCH_SAMPLES = 4
NOTICED = {"unfinished", "damaged"}


class SilentError(AssertionError):
    """A fault went by without a word."""


@dataclass
class Row:
    """What came of the faults of one class."""

    name: str
    tried: int = 0
    went_on: int = 0
    """From the generation before the fault, from the one that it hit, or from the one before both."""
    started_over: int = 0
    """From the factory, and said so."""
    silent: list[str] = field(default_factory=list)

    def add(self, other: Row, of: str) -> None:
        """What another network gave."""
        self.tried += other.tried
        self.went_on += other.went_on
        self.started_over += other.started_over
        self.silent += [f"{of}: {text}" for text in other.silent]


@dataclass(frozen=True)
class Right:
    """A generation that the training has without faults; its number is not part of it."""

    epochs: int
    steps: int
    state: int
    payload: bytes


class Trials:
    """One compiled network under faults."""

    def __init__(self, machine: Machine, samples: Samples, seed: int) -> None:
        self.machine, self.samples = machine, samples
        self.random = random.Random(seed)
        machine.format()
        machine.boot(fresh=True)
        self.right = [self._stands()]
        for number in range(LAST):
            self._epoch(number)
            assert machine.commit() == OK
            self.right.append(self._stands())
            if number + 1 == START:
                machine.lib.cut_probe_keep()
        machine.lib.cut_probe_restore()
        self._epoch(START)
        assert machine.commit() == OK
        self.counts = machine.counts()
        self.ends = [machine.bank(bank)[0] + BANK_HEADER_BYTES + len(machine.payload(bank)) for bank in (0, 1)]

    def _epoch(self, number: int) -> None:
        """Trains one epoch; what it sees follows from its number."""
        order = epoch_order(2, number, len(self.samples.x))
        self.machine.train(self.samples, [int(i) for i in order[:EPOCH_SAMPLES]])

    def _stands(self) -> Right:
        """What a boot makes of the flash."""
        assert self.machine.start_under() == OK
        return self._running()

    def _running(self) -> Right:
        at = self.machine.identity()
        payload = self.machine.payload(self.machine.bank_in_use) if at.weights or at.epochs else b""
        return Right(at.epochs, at.steps, at.state, payload)

    def place(self) -> int:
        """An address in one of the banks' generations."""
        bank = self.random.randrange(2)
        return self.random.randrange(self.machine.bank(bank)[0], self.ends[bank])

    def flip(self) -> None:
        """One bit flips."""
        self.machine.flip(self.place(), self.random.randrange(8))

    def judge(self, row: Row, claimed: int, allowed: range | tuple[int, ...] = range(LAST + 1)) -> None:
        """Starts again and goes on to the last epoch. `claimed`: the generation that was said to be kept."""
        stands = self._stands()
        if stands not in self.right:
            raise SilentError(f"a generation of {stands.epochs} epochs that is not the training's")
        at = self.right.index(stands)
        found = {found.state for found in self.machine.found()}
        if at not in allowed or (at < claimed and not found & NOTICED):
            raise SilentError(f"generation {claimed} was kept, {at} stands, banks are {sorted(found)}")
        for number in range(at, LAST):
            self._epoch(number)
            if self.machine.commit() != OK:
                raise SilentError(f"the commit of epoch {number + 1} was refused without a fault")
        if self._stands() != self.right[LAST]:
            raise SilentError("the training ended otherwise")
        row.went_on += at > 0
        row.started_over += at == 0

    def commit(self, **faults: int) -> int:
        """Trains and commits under faults; without power nothing more. The generation that stands by its own word."""
        self._epoch(START)
        kept = START + (self.machine.commit(**faults) == OK)
        if "cut_at" in faults:
            return kept
        if kept == START and self.random.randrange(2):
            kept += self.machine.commit() == OK  # once more, with a flash that works
        if kept > START and self.random.randrange(2):
            self._epoch(kept)
            kept += self.machine.commit() == OK
        return kept


Trial = Callable[[Trials, Row], None]


def cuts(count: int) -> Trial:
    """The power goes in `count` commits, one after the other."""

    def trial(t: Trials, row: Row) -> None:
        stands = START
        for _ in range(count):
            at = t.random.randint(1, t.counts.operations)
            t._epoch(stands)
            status = t.machine.commit(cut_at=at, cut_phase=t.random.randrange(3), seed=t.random.getrandbits(32))
            booted = t._stands()
            if booted not in t.right[stands : stands + 2] or (status == OK and booted != t.right[stands + 1]):
                raise SilentError("after a cut neither the generation before nor the new one stands")
            stands = min(t.right.index(booted), LAST - 1)
        t.judge(row, stands, range(stands, LAST + 1))

    return trial


def lies(kind: int) -> Trial:
    """Operations that report success: nothing of them happens, or one bit is wrong."""

    def trial(t: Trials, row: Row) -> None:
        at = t.random.randint(1, t.counts.operations)
        count = t.random.choice((1, 1, 2, 5, 1 << 20))
        faults = {"lie_at": at, "lie_count": count, "lie": kind, "seed": t.random.getrandbits(32)}
        t.judge(row, t.commit(**faults), range(START, LAST + 1))

    return trial


def refusals(t: Trials, row: Row) -> None:
    """Operations that happen in part and report so."""
    at = t.random.randint(1, t.counts.operations)
    faults = {"fail_at": at, "fail_count": t.random.choice((1, 2, 5, 1 << 20)), "seed": t.random.getrandbits(32)}
    t.judge(row, t.commit(**faults), range(START, LAST + 1))


def dead_sectors(t: Trials, row: Row) -> None:
    """A sector that refuses for good."""
    place = t.place()
    t._epoch(START)
    dead = {"dead_address": place, "dead_bytes": 1, "seed": t.random.getrandbits(32)}
    committed = t.machine.commit(**dead) == OK
    first, size = t.machine.bank(1 - t.machine.bank_in_use)
    hit = not committed
    if hit != (first <= place < first + size and t.machine.fault is not None) or (
        committed and t.machine.fault is not None
    ):
        raise SilentError("a dead sector was not named")
    if hit and not _sector_at(t.machine, t.machine.fault or 0, place):
        raise SilentError(f"sector {t.machine.fault} was named, the dead place is {place}")
    t.machine.arm()
    t.judge(row, START + committed, range(START, LAST + 1))


def _sector_at(machine: Machine, sector: int, place: int) -> bool:
    sizes = [size for count, size in machine.compiled.flash.runs for _ in range(count)]
    first = sum(sizes[:sector])
    return first <= place < first + sizes[sector]


def bits_before(t: Trials, row: Row) -> None:
    """A bit flips after the start, before the training or before the commit."""
    if t.random.randrange(2):
        t.flip()
        t.judge(row, t.commit())
        return
    t._epoch(START)
    t.flip()
    t.judge(row, START + (t.machine.commit() == OK))


def bits_during(t: Trials, row: Row) -> None:
    """A bit flips at any call of the commit."""
    at = t.random.randint(1, t.counts.calls)
    t.judge(row, t.commit(flip_at=at, flip_address=t.place(), flip_bit=t.random.randrange(8)))


def bits_after(t: Trials, row: Row) -> None:
    """A bit flips after the commit; the training goes on in memory, or starts again."""
    kept = t.commit()
    t.flip()
    if kept < LAST and t.random.randrange(2):
        t._epoch(kept)
        kept += t.machine.commit() == OK
    t.judge(row, kept)


def read_errors(t: Trials, row: Row) -> None:
    """Reads that fail for a while, in a commit or at a start."""
    count = t.random.choice((1, 2, 3, 10))
    if t.random.randrange(2):
        at = t.random.randint(1, t.counts.reads)
        t.judge(row, t.commit(read_fail_at=at, read_fail_count=count))
        return
    _start(t, row, read_fail_at=t.random.randint(1, 12), read_fail_count=count)


def misreads(t: Trials, row: Row) -> None:
    """One read gives one bit wrong and does not know, in a commit or at a start."""
    seed = t.random.getrandbits(32)
    if t.random.randrange(2):
        t.judge(row, t.commit(read_lie_at=t.random.randint(1, t.counts.reads), seed=seed))
        return
    _start(t, row, read_lie_at=t.random.randint(1, 12), seed=seed)


def _start(t: Trials, row: Row, **faults: int) -> None:
    """A start under faults, and an epoch from what it found."""
    if t.machine.start_under(**faults) != OK:
        raise SilentError("a start was refused")
    t.machine.arm()
    running = t._running()
    if running not in t.right or (running != t.right[START] and not NOTICED & {f.state for f in t.machine.found()}):
        raise SilentError("a start made of its flash what never was, or said nothing")
    at = t.right.index(running)
    t._epoch(at)
    t.judge(row, at + (t.machine.commit() == OK))


def restarts(t: Trials, row: Row) -> None:
    """The device starts again in the middle of an epoch."""
    t.machine.train(t.samples, slice(0, t.random.randint(0, EPOCH_SAMPLES)))
    t.judge(row, START, (START,))


def factory_resets(t: Trials, row: Row) -> None:
    """A factory reset, with and without wipe, that the power or a lie cuts short: learned or factory, nothing older."""
    wipe = bool(t.random.randrange(2))
    at = t.random.randint(1, 2 + wipe * t.machine.compiled.flash.sectors)
    seed = t.random.getrandbits(32)
    if t.random.randrange(2):
        status = t.machine.reset(wipe=wipe, cut_at=at, cut_phase=t.random.choice((0, INSIDE, AFTER)), seed=seed)
    else:
        lie = {"lie_at": at, "lie_count": t.random.choice((1, 2, 1 << 20)), "lie": t.random.choice((IGNORED, WRONG))}
        status = t.machine.reset(wipe=wipe, **lie, seed=seed)
    if status == OK and wipe and set(t.machine.read(0, t.machine.compiled.flash.size)) != {0xFF}:
        raise SilentError("a wipe left something")
    t.judge(row, 0, (0,) if status == OK else (0, START))


CLASSES: dict[str, tuple[int, Trial]] = {
    "power cut in a commit": (20, cuts(1)),
    "two cuts, one after the other": (8, cuts(2)),
    "three cuts": (6, cuts(3)),
    "operations refused": (8, refusals),
    "dead sector": (6, dead_sectors),
    "writes ignored": (8, lies(IGNORED)),
    "bits written wrong": (8, lies(WRONG)),
    "a bit flips before a commit": (8, bits_before),
    "a bit flips during a commit": (8, bits_during),
    "a bit flips after a commit": (8, bits_after),
    "reads refused for a while": (5, read_errors),
    "a bit read wrong once": (5, misreads),
    "restart in an epoch": (1, restarts),
    "factory reset cut short or ignored": (4, factory_resets),
}
"""Share of all faults, and how one is made."""


def study(trials: Trials, faults: int, tell: Callable[[int], None] = lambda _: None) -> list[Row]:
    """So many faults over all classes."""
    whole = sum(share for share, _ in CLASSES.values())
    rows = []
    for name, (share, trial) in CLASSES.items():
        row = Row(name)
        for _ in range(max(1, round(faults * share / whole))):
            trials.machine.lib.cut_probe_restore()
            trials.machine.arm()
            row.tried += 1
            try:
                trial(trials, row)
            except SilentError as error:
                row.silent.append(str(error))
            tell(1)
        rows.append(row)
    return rows
