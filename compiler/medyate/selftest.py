# SPDX-License-Identifier: Apache-2.0
"""Does a compiled image do on its target what it does on this machine? Training, banks, memory, times.

The same course is run on the target and on this machine's build of the same sources: training steps on noise, commits
to both banks, a restart, a resume. Digests say whether the integers are the same, marks and the target's clock whether
memory and times are those of the plan.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.boards import BOARDS
from medyate.build.compile import build_host
from medyate.errors import DataError, LinkError
from medyate.run.held import counted
from medyate.run.link import RefusedError, RestartedError
from medyate.run.session import SELF_TEST, Digests, Marks, Position, Result, Session
from medyate.run.train import PATTERNS, Compiled, check_target, connect, connect_image
from medyate.run.transport import BAUD
from medyate.version import VERSION

STEPS = 64
"""Whose digest is compared before anything is committed."""
MORE = 4
"""Steps between commits, and after the restart."""
NOISE_SEED = 1
CYCLES = (1.0, 1.5)
"""Of an instruction, assumed."""
SLACK = 1.1
"""By how much a commit may be longer than its erases, programs and checks."""
GENERATION_CYCLES, ERASED_CYCLES = 600, 100
"""Of the core in a commit, at most: for each byte of a generation (drawing, adding, CRCs), for each that was erased.

Held by tests/boards/test_ports.py.
"""
LINK_SECONDS = 0.1
RESET_SECONDS = 60.0
POLL_SECONDS = 0.3
NAMES = {"losses": "losses and logits", "selections": "selections", "deltas": "deltas", "state": "state"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Check:
    """One line of the list."""

    name: str
    passed: bool | None
    """None: it was not done."""
    said: str
    """What was found, without a full stop."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Numbers of it."""


@dataclass
class Seen:
    """What a course gave, as far as it came."""

    stages: dict[str, Digests] = field(default_factory=dict)
    """Digests by what had just been done."""
    results: list[Result] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    """After the start, after each commit, after the resume."""
    commit_seconds: list[float] = field(default_factory=list)
    """As the host waited."""
    restarted: bool = False
    stopped: str = ""
    """Why it did not come to its end."""
    damaged_frames: int = 0


@dataclass(frozen=True)
class Options:
    """What the user chose."""

    on: str
    baud: int = BAUD
    key: bytes | None = None
    fresh: bool = False
    """What the target has learned may be discarded."""
    flash: bool = True
    """The banks are written."""
    ask_reset: bool = True
    """The owner of a board is asked to press its reset button."""
    tell: Callable[[str], None] = lambda _: None
    progress: Progress = lambda _what, _done, _total: None


def selftest(compiled: Compiled, options: Options) -> dict[str, Any]:
    """The checks and what they found, as `medyate selftest --json` prints it.

    Raises MedyateError where nothing could be tried: no target, another image, or a training that would be lost.
    """
    target = check_target(compiled, options.on)
    writes = options.flash and not compiled.weights_in_ram
    samples, labels = noise(compiled, STEPS + 2 * MORE)
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        options.progress("building", 0, len(samples))
        here = compiled.image if target == "host" else build_host(compiled.folder / "project", Path(folder) / "build")
        there = _Target(compiled, options, Path(folder) / "target.bin")
        with there:
            there.check_free()
            seen = course(there, samples, labels, writes, options.progress)
        with _Here(compiled, here, Path(folder) / "host.bin") as host:
            if writes and seen.positions and host.session.begin(SELF_TEST).bank != seen.positions[0].bank:
                host.session.commit()  # the target's flash has been used: its banks take turns the other way
            right = course(host, samples, labels, writes, lambda _what, _done, _total: None)
    checks = list(compare(compiled, options, seen, right, writes=writes))
    return {
        "version": VERSION,
        "network": compiled.model["network"],
        "digest": compiled.model["digest"],
        "target": target,
        "on": options.on,
        "image_sha256": hashlib.sha256(compiled.image.read_bytes()).hexdigest(),
        "passed": all(check.passed is not False for check in checks),
        "checks": [asdict(check) for check in checks],
    }


def noise(compiled: Compiled, count: int) -> tuple[NDArray[np.int8], list[Any]]:
    """Samples that need no data, and a label, or targets, for each."""
    random = np.random.default_rng(NOISE_SEED)
    shape = tuple(int(size) for size in compiled.model["input_shape"])
    samples = random.integers(-128, 128, (count, *shape), np.int8)
    outputs = int(compiled.model["outputs"])
    if compiled.model["classes"]:
        return samples, [int(label) for label in random.integers(0, outputs, count)]
    return samples, list(random.uniform(-1.0, 1.0, (count, outputs)))


class _Here:
    """The host's build of the image; a restart is a new process with the same flash."""

    def __init__(self, compiled: Compiled, image: Path, flash: Path) -> None:
        self._compiled, self._image, self._flash = compiled, image, flash
        self._stack = ExitStack()
        self.session: Session

    def __enter__(self) -> _Here:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self) -> None:
        """Connects."""
        digest = int(self._compiled.model["digest"])
        self.session = self._stack.enter_context(connect_image(self._image, "host", digest, self._flash))

    def restart(self) -> bool:
        """Whether it has lost its RAM and began anew."""
        self._stack.close()
        self.open()
        return True


class _Target(_Here):
    """What is tested."""

    def __init__(self, compiled: Compiled, options: Options, flash: Path) -> None:
        super().__init__(compiled, compiled.image, flash)
        self._options = options
        self._is_board = options.on.startswith("serial:")

    def open(self) -> None:
        options = self._options
        opened = connect(self._compiled, options.on, self._flash, baud=options.baud, key=options.key)
        self.session = self._stack.enter_context(opened)

    def check_free(self) -> None:
        """Raises DataError, or LinkError, where the test would lose a training unasked."""
        if not self._options.fresh:
            _refuse_to_lose(self.session, self._compiled, writes=self._options.flash)

    def restart(self) -> bool:
        if not self._is_board:
            return super().restart()
        try:
            self.session.check_access()
            self.session.exit()
        except LinkError:  # an image that nobody may end
            if not self._options.ask_reset:
                return False
            self._options.tell(f"press the reset button of the board now; this waits for {RESET_SECONDS:.0f} s")
        return self._wait()

    def _wait(self) -> bool:
        """Until the target has forgotten the session."""
        ends = time.monotonic() + RESET_SECONDS
        while time.monotonic() < ends:
            try:
                self.session.digests()
            except RestartedError:
                self.session.greet()
                return True
            time.sleep(POLL_SECONDS)
        return False


def _refuse_to_lose(session: Session, compiled: Compiled, *, writes: bool) -> None:
    if compiled.weights_in_ram:
        try:
            has_trained = session.digests().losses != 0
        except RefusedError:  # it was not begun since it started
            return
        if has_trained:
            raise DataError("the target holds a training in RAM.", "Discard it with --fresh.")
        return
    if not writes:
        return
    there = session.begin(replace(SELF_TEST, fresh=False))
    if there.is_used and there.settings != SELF_TEST.settings():
        raise DataError(
            f"the target's flash holds generation {there.generation} of this model, trained for "
            f"{counted(there.epochs)}.",
            "Discard it with --fresh, or leave it alone with --no-flash.",
        )


def course(target: _Here, samples: NDArray[np.int8], labels: list[Any], writes: bool, progress: Progress) -> Seen:
    """Trains, commits to both banks, restarts, resumes, trains. What goes wrong ends it and is noted."""
    seen = Seen()
    try:
        _course(target, seen, samples, labels, writes, progress)
    except LinkError as error:
        seen.stopped = str(error).rstrip(".")
    seen.damaged_frames = target.session.link.line.damaged
    return seen


def _course(
    target: _Here, seen: Seen, samples: NDArray[np.int8], labels: list[Any], writes: bool, progress: Progress
) -> None:
    def train(first: int, count: int) -> None:
        for at in range(first, first + count):
            seen.results.append(target.session.train(samples[at], labels[at]))
            progress("steps", at + 1, len(samples))

    def commit(name: str) -> None:
        progress(name, STEPS, len(samples))
        began = time.monotonic()
        seen.positions.append(target.session.commit())
        seen.commit_seconds.append(time.monotonic() - began)
        seen.stages[name] = target.session.digests()

    seen.positions.append(target.session.begin(SELF_TEST, PATTERNS[0]))
    train(0, STEPS)
    seen.stages["training"] = target.session.digests()
    target.session.infer(samples[0], labels[0])
    if writes:
        commit("first commit")
        train(STEPS, MORE)
        commit("second commit")
    seen.marks.append(target.session.marks())
    if not writes:
        return
    progress("restart", STEPS + MORE, len(samples))
    seen.restarted = target.restart()
    seen.positions.append(target.session.begin(replace(SELF_TEST, fresh=False), PATTERNS[1]))
    seen.stages["resume"] = target.session.digests()
    train(STEPS + MORE, MORE)
    seen.stages["training after the resume"] = target.session.digests()
    seen.marks.append(target.session.marks())


def compare(compiled: Compiled, options: Options, seen: Seen, right: Seen, *, writes: bool) -> Iterator[Check]:
    """Every check, in the order in which a board is brought up."""
    yield _training(seen, right)
    if writes:
        yield from _banks(seen, right)
        yield _restart(options, seen)
    else:
        why = "the weights are in RAM" if compiled.weights_in_ram else "--no-flash"
        yield Check("flash", None, f"nothing was written: {why}")
    yield from _memory(compiled, seen)
    yield _step_time(compiled, seen)
    if writes:
        yield commit_time(compiled, options, seen)


def _training(seen: Seen, right: Seen) -> Check:
    name = f"{STEPS} training steps"
    for number, (one, other) in enumerate(zip(seen.results[:STEPS], right.results, strict=False)):
        if (one.loss, one.prediction) != (other.loss, other.prediction):
            return Check(name, False, f"step {number + 1} gave loss {one.loss:.5f}, here it is {other.loss:.5f}")
    return _equal(name, "training", seen, right)


def _equal(name: str, stage: str, seen: Seen, right: Seen, *, flash: bool = False) -> Check:
    """Whether a stage was reached, with the digests that this machine has then.

    The flash is comparable once both banks are written, however often they were before: their headers differ then, but
    each ends with its own CRC, which leaves the CRC over all of it the same.
    """
    if stage not in seen.stages:
        return Check(name, False, f"not reached: {seen.stopped}")
    one, other = seen.stages[stage], right.stages[stage]
    names = NAMES | ({"flash": "flash"} if flash else {})
    odd = [what for key, what in names.items() if getattr(one, key) != getattr(other, key)]
    facts = {"digest": str(one), "expected": str(other)}
    if odd:
        return Check(name, False, f"{', '.join(odd)} not as on this machine: {one} instead of {other}", facts)
    return Check(name, True, f"digest {one}, as on this machine", facts)


def _banks(seen: Seen, right: Seen) -> Iterator[Check]:
    yield _equal("commit", "first commit", seen, right)
    yield _equal("commit to the other bank, both read back", "second commit", seen, right, flash=True)
    resumed = _equal("resume from flash", "resume", seen, right)
    if resumed.passed:
        _, first, second, found = seen.positions[:4]
        states = [bank.state for bank in found.found]
        said = f"generation {found.generation} of bank {found.bank}; the banks are {' and '.join(states)}"
        whole = (found.generation, found.bank, *states) == (second.generation, second.bank, "usable", "usable")
        if not whole or first.bank == second.bank:
            resumed = Check(resumed.name, False, said, resumed.facts)
    yield resumed
    yield _equal(f"{MORE} training steps after the resume", "training after the resume", seen, right)


def _restart(options: Options, seen: Seen) -> Check:
    if seen.restarted:
        return Check("restart", True, "the target lost its RAM, and went on from its flash")
    if "second commit" not in seen.stages:
        return Check("restart", None, "not reached")
    why = f"no reset within {RESET_SECONDS:.0f} s" if options.ask_reset else "--no-reset"
    return Check("restart", None, f"not tried: {why}")


def _memory(compiled: Compiled, seen: Seen) -> Iterator[Check]:
    limit, reserved = int(compiled.plan["ram_limit_bytes"]), int(compiled.plan["stack_reserved_bytes"])
    if not seen.marks or not seen.marks[0].static:
        why = "this target does not tell" if seen.marks else "not reached"
        yield Check("RAM", None, why)
        return
    static, stack = seen.marks[0].static, max(mark.stack for mark in seen.marks)
    used = static + stack
    facts = {"ram_used_bytes": used, "static_bytes": static, "stack_bytes": stack, "ram_limit_bytes": limit}
    yield Check("RAM", used <= limit, f"{used:,} B used, stack included, of {limit:,} B", facts)
    said = f"{stack:,} B deep, {reserved:,} B are reserved"
    yield Check("stack", 0 < stack <= reserved, said, {"stack_bytes": stack, "stack_reserved_bytes": reserved})


def _step_time(compiled: Compiled, seen: Seen) -> Check:
    name, bound = "time of a training step", int(compiled.plan["step_instructions_bound"])
    times = [result.milliseconds for result in seen.results[:STEPS]]
    counts = [result.instructions for result in seen.results[:STEPS]]
    build = BOARDS[str(compiled.model["target"])].build
    if any(times) and build is not None and build.clock_hz:
        mean, most = sum(times) / len(times), bound * CYCLES[1] / build.clock_hz * 1000
        facts = {"ms_per_step": round(mean, 3), "ms_per_step_max": round(max(times), 3), "bound_ms": round(most, 3)}
        return Check(name, mean <= most, f"{mean:.1f} ms; at most {most:.1f} ms are estimated", facts)
    if any(counts):
        most = max(counts)
        facts = {"instructions_per_step_max": most, "bound_instructions": bound}
        return Check(name, most <= bound, f"{most:,} instructions at most; {bound:,} are estimated", facts)
    return Check(name, None, "this target has no clock" if counts else "not reached")


def work_cycles(banks: Mapping[str, Any], bank: int) -> int:
    """What the core does at most in a commit to that bank, beside waiting for the flash."""
    return GENERATION_CYCLES * int(banks["generation_bytes"]) + ERASED_CYCLES * int(banks["banks"][bank]["bytes"])


def commit_time(compiled: Compiled, options: Options, seen: Seen) -> Check:
    """Whether commits took no longer than the largest times on flash and what the core does beside them."""
    name, banks = "time of a commit", compiled.model.get("banks")
    build = BOARDS[str(compiled.model["target"])].build
    if not options.on.startswith("serial:") or not banks or build is None:
        return Check(name, None, "this target's flash takes no time")
    if not seen.commit_seconds:
        return Check(name, None, "not reached")
    took = [1000 * seconds for seconds in seen.commit_seconds]
    order = [position.bank for position in seen.positions[1:3]]
    work = [1000 * work_cycles(banks, bank) / build.clock_hz for bank in order]
    largest = [float(banks["banks"][bank]["commit_max_ms"]) for bank in order]
    typical = [float(banks["banks"][bank]["commit_ms"]) for bank in order]
    most = [SLACK * (flash + core) + 1000 * LINK_SECONDS for flash, core in zip(largest, work, strict=True)]
    said = ", ".join(
        f"{ms:,.0f} ms to bank {bank} ({low:,.0f} to {high:,.0f} ms on flash)"
        for ms, bank, low, high in zip(took, order, typical, largest, strict=False)
    )
    facts = {"commit_ms": [round(ms) for ms in took], "typical_ms": typical, "largest_ms": largest}
    return Check(name, all(ms <= limit for ms, limit in zip(took, most, strict=False)), said, facts)
