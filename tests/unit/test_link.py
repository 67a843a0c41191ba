# SPDX-License-Identifier: Apache-2.0
"""The link loses frames, never results; what a host may send never brings the target down."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cobs import cobs

from frames import frame
from medyate.errors import LinkError
from medyate.run.link import BODY_BYTES, PROTOCOL, Link, Transport
from medyate.run.session import (
    BEGIN,
    COMMIT,
    DATA,
    DIGESTS,
    EXIT,
    FORCE,
    HELLO,
    INFER,
    NORMS,
    READ,
    RESERVED,
    TARGET,
    TRAIN,
    Digests,
    Session,
    Training,
)
from medyate.run.train import Compiled
from medyate.run.transport import HostProgram
from shared_files import Samples

STEPS = 8
TRAINING = Training(0.02, 2, STEPS, "constant", seed=4)
PATIENCE = 20.0
FAULTS = ("dropped", "damaged", "doubled", "truncated", "cut off", "preceded")


@pytest.fixture(scope="module")
def sanitized(digitnet_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The same program under AddressSanitizer and UndefinedBehaviorSanitizer: an error ends it."""
    folder = tmp_path_factory.mktemp("sanitized")
    project = folder / "project"
    shutil.copytree(digitnet_host.folder / "project", project, ignore=shutil.ignore_patterns("build"))
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-conversion -Wno-sign-conversion"
    subprocess.run(["make", "-s", "-j2", "host", f"CFLAGS={flags}"], cwd=project, check=True)
    return dataclasses.replace(digitnet_host, folder=folder)


class Noise:
    """A transport that drops, damages, doubles and truncates frames in both directions."""

    def __init__(self, inner: Transport, seed: int, rate: float, *, buffered: bool) -> None:
        self.inner = inner
        self.buffered = buffered
        self.random = np.random.default_rng(seed)
        self.rate = rate
        self.faults = Counter[tuple[str, str]]()
        self._received = b""

    def write(self, data: bytes) -> None:
        """Sends all frames, some of them wrong."""
        frames = data.split(b"\0")[:-1]
        self.inner.write(b"".join(self._disturb(frame + b"\0", "request") for frame in frames))

    def read(self, timeout: float) -> bytes:
        """What has arrived, some of it wrong."""
        while b"\0" not in self._received:
            received = self.inner.read(timeout)
            if not received:
                return b""
            self._received += received
        frame, self._received = self._received.split(b"\0", 1)
        return self._disturb(frame + b"\0", "reply") or self.read(timeout)

    def _disturb(self, frame: bytes, what: str) -> bytes:
        if len(frame) < 2 or self.random.random() >= self.rate:  # a zero alone is no frame
            return frame
        kind = FAULTS[sum(self.faults[what, k] for k in FAULTS) % len(FAULTS)]
        self.faults[what, kind] += 1
        place = int(self.random.integers(0, len(frame) - 1))
        if kind == "damaged":
            return frame[:place] + bytes([frame[place] ^ int(self.random.integers(1, 256))]) + frame[place + 1 :]
        others = {
            "dropped": b"",
            "doubled": frame * 2,
            "truncated": frame[:place] + b"\0",
            "cut off": frame[:place],  # without its end: the next frame is lost with it
            "preceded": self.random.integers(0, 256, 40, np.uint8).tobytes() + frame,
        }
        return others[kind]


@contextmanager
def host(compiled: Compiled, flash: Path) -> Iterator[HostProgram]:
    with HostProgram(compiled.image, flash) as program:
        yield program


@dataclass(frozen=True)
class Work:
    """What some training gave; the same whatever the link did."""

    losses: tuple[float, ...]
    predictions: tuple[int, ...]
    norms: tuple[int, ...]
    digests: tuple[Digests, Digests]


def train(session: Session, samples: Samples) -> Work:
    session.begin(TRAINING)
    results = [session.train(samples.x[i], int(samples.y[i])) for i in range(STEPS)]
    before = session.digests()
    session.commit()
    results.append(session.infer(samples.x[STEPS], 3))
    norms = tuple(session.norms().tolist())
    losses, predictions = tuple(r.loss for r in results), tuple(r.prediction for r in results)
    return Work(losses, predictions, norms, (before, session.digests()))


@pytest.fixture(scope="module")
def clean(digitnet_host: Compiled, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Work:
    with host(digitnet_host, tmp_path_factory.mktemp("clean") / "flash.bin") as program:
        return train(Session(Link(program, PATIENCE)), samples)


# A bad line


def test_a_line_that_loses_frames_changes_nothing(
    digitnet_host: Compiled, samples: Samples, clean: Work, tmp_path: Path
) -> None:
    faults = Counter[tuple[str, str]]()
    for seed in range(10):
        with host(digitnet_host, tmp_path / f"{seed}.bin") as program:
            noise = Noise(program, seed, 0.04, buffered=seed % 2 == 0)
            assert train(Session(Link(noise, PATIENCE)), samples) == clean
            faults += noise.faults
    assert len(faults) >= len(FAULTS), faults


class ShortFrames(Link):
    """As on a line that loses much."""

    piece = 48


def test_a_sample_in_pieces_survives_a_line_that_loses_frames(
    digitnet_host: Compiled, samples: Samples, clean: Work, tmp_path: Path
) -> None:
    """The demonstration's samples fit one request; here each is sent in six."""
    for seed in range(4):
        with host(digitnet_host, tmp_path / f"{seed}.bin") as program:
            noise = Noise(program, 100 + seed, 0.03, buffered=seed % 2 == 0)
            session = Session(ShortFrames(noise, PATIENCE))
            session.begin(TRAINING)
            losses = []
            for i in range(STEPS):
                raw = samples.x[i].tobytes()
                session.link.stream(DATA, raw)
                reply = session.link.request(TRAIN, struct.pack("<H", int(samples.y[i])))
                losses.append(struct.unpack("<I", reply[:4])[0] / 65536)
            assert tuple(losses) == clean.losses[:STEPS]
            assert session.digests() == clean.digests[0]
            assert noise.faults


class Deaf:
    """A target that never answers; counts what it is sent. Waiting for it takes no time but its own."""

    buffered = True
    sent = 0
    now = 0.0

    def write(self, data: bytes) -> None:
        """Counts."""
        self.sent += 1

    def read(self, timeout: float) -> bytes:
        """Nothing."""
        self.now += timeout
        return b""


def test_a_target_that_never_answers_is_asked_some_times_and_given_up() -> None:
    deaf = Deaf()
    with pytest.raises(LinkError, match=r"did not answer within 0\.8 s"):
        Session(Link(deaf, 0.8, clock=lambda: deaf.now))
    assert deaf.sent == 8  # after 40 ms, twice that, and every 120 ms


def test_a_program_that_died_is_reported(digitnet_host: Compiled, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        assert program.process is not None
        program.process.kill()
        with pytest.raises(LinkError):
            session.digests()


def test_more_requests_than_there_are_sequence_numbers(digitnet_host: Compiled, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        session.begin(TRAINING)
        replies = {session.link.request(READ, struct.pack("<BIB", NORMS, 0, 100)) for _ in range(600)}
    assert len(replies) == 1


# What a target is sent


def answer(program: HostProgram, sent: bytes) -> bytes:
    """The body of the one reply to `sent`."""
    program.write(sent)
    received = b""
    while len(received) < 2 or not received.endswith(b"\0"):
        part = program.read(PATIENCE)
        assert part, "no answer"
        received += part
    assert received.count(b"\0") == 2 and received[0] == 0
    body = cobs.decode(received[1:-1])
    assert zlib.crc32(body[:-4]) == struct.unpack("<I", body[-4:])[0]
    return body[:-4]


def test_a_repeated_request_is_answered_again_and_carried_out_once(
    digitnet_host: Compiled, samples: Samples, clean: Work, tmp_path: Path
) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        answer(program, frame(1, BEGIN, TRAINING.fields(0xA5)))
        for i in range(STEPS):
            piece = struct.pack("<I", 0) + samples.x[i].tobytes()
            sample, step = frame(2 + 2 * i, DATA, piece), frame(3 + 2 * i, TRAIN, struct.pack("<H", samples.y[i]))
            assert answer(program, sample) == answer(program, sample)
            assert answer(program, step) == answer(program, step) == answer(program, step)
        digests = answer(program, frame(200, DIGESTS))[6:]
        assert Digests(*struct.unpack("<5I", digests)) == clean.digests[0]
        commit = frame(201, COMMIT)
        assert answer(program, commit) == answer(program, commit)
        assert answer(program, commit)[6:14] == struct.pack("<II", 1, 1)


def test_a_new_host_that_starts_with_the_last_ones_number_is_answered(digitnet_host: Compiled, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        answer(program, frame(7, BEGIN, TRAINING.fields(0xA5)))
        hello = answer(program, frame(7, HELLO))
    assert hello[:6] == bytes([PROTOCOL, 7, HELLO, 0, 0, 0])


def junk(random: np.random.Generator) -> bytes:
    """Bytes that are no valid frame: noise, zeros, frames too long or with another CRC."""
    kind = random.integers(0, 6)
    if kind == 0:
        return random.integers(0, 256, int(random.integers(1, 2000)), np.uint8).tobytes() + b"\0"
    if kind == 1:
        return bytes(int(random.integers(1, 50)))
    if kind == 2:
        return b"\xff" * int(random.integers(500, 6000)) + b"\0"
    if kind == 3:
        return frame(int(random.integers(0, 256)), TRAIN, bytes(random.integers(525, 3000)))
    if kind == 4:
        body = random.integers(0, 256, int(random.integers(0, 532)), np.uint8).tobytes()
        return cobs.encode(body + struct.pack("<I", zlib.crc32(body) ^ 1)) + b"\0"
    body = random.integers(0, 256, int(random.integers(0, 4)), np.uint8).tobytes()  # shorter than a head
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def test_junk_between_the_requests_changes_nothing(
    sanitized: Compiled, samples: Samples, clean: Work, tmp_path: Path
) -> None:
    random = np.random.default_rng(20)

    class Junky(HostProgram):
        def write(self, data: bytes) -> None:
            super().write(b"".join(junk(random) for _ in range(8)) + data)

    with Junky(sanitized.image, tmp_path / "flash.bin") as program:
        assert train(Session(Link(program, PATIENCE)), samples) == clean


def test_the_longest_body_is_taken_and_one_byte_more_is_dropped(digitnet_host: Compiled, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        longest = frame(1, HELLO, bytes(BODY_BYTES - 6))
        assert answer(program, longest)[3] == 0
        program.write(frame(2, HELLO, bytes(BODY_BYTES - 5)))
        assert answer(program, frame(3, HELLO))[1] == 3


@pytest.mark.parametrize("seed", range(3))
def test_random_requests_are_answered_and_do_no_harm(
    sanitized: Compiled, samples: Samples, clean: Work, tmp_path: Path, seed: int
) -> None:
    """Every command but EXIT, with fields of any length and content, right frames and random order."""
    random = np.random.default_rng(30 + seed)
    statuses = Counter[int]()
    lengths = {BEGIN: 28, DATA: 260, TRAIN: 2, INFER: 2, READ: 6, FORCE: 2 * len(sanitized.plan["candidates"])}
    with host(sanitized, tmp_path / "flash.bin") as program:
        for i in range(1500):
            command = int(random.choice([*range(EXIT), *range(EXIT), 14, 77, 255]))
            length = lengths.get(command, 0) if random.random() < 0.7 else int(random.integers(0, BODY_BYTES - 6))
            fields = bytearray(random.integers(0, 256, length, np.uint8).tobytes())
            if random.random() < 0.6:  # small numbers reach deeper
                fields[:] = bytes(b % 3 if j % 4 == 0 else 0 for j, b in enumerate(fields))
            if command == DATA and random.random() < 0.5:
                fields[:4] = bytes(4)
            protocol = PROTOCOL if random.random() < 0.98 else int(random.integers(0, 256))
            sequence = i % 255 + 1
            reply = answer(program, frame(sequence, command, bytes(fields), protocol))
            assert reply[:3] == bytes([PROTOCOL, sequence, command])
            statuses[reply[3]] += 1
        assert set(statuses) <= {0, 1, 2, 3, 5, 6, 7}, statuses
        assert {0, 1, 3, 7} <= set(statuses), statuses
        session = Session(Link(program, PATIENCE))
        work = train(session, samples)
    assert (work.losses, work.predictions, work.norms) == (clean.losses, clean.predictions, clean.norms)


def test_wrong_requests_are_refused_with_their_status_and_the_session_goes_on(
    sanitized: Compiled, samples: Samples, clean: Work, tmp_path: Path
) -> None:
    candidates = sanitized.plan["candidates"]
    one = struct.pack("<H", 1)
    whole = struct.pack("<I", 0) + samples.x[0].tobytes()
    every = struct.pack(f"<{len(candidates)}H", *(c["channels"] for c in candidates))
    too_many = struct.pack(f"<{len(candidates)}H", *(c["channels"] + 1 for c in candidates))
    refused = [
        (TRAIN, one, "does not fit the state"),  # no sample
        (DATA, struct.pack("<I", 4) + bytes(8), "out of range"),  # does not start at 0
        (DATA, bytes(3), "out of range"),
        (DATA, whole + b"\0", "out of range"),  # longer than the input
        (DATA, whole[:100], ""),
        (TRAIN, one, "does not fit the state"),  # half a sample
        (DATA, struct.pack("<I", 90) + bytes(166), "out of range"),  # leaves a gap of -6
        (INFER, b"\0", "does not fit the state"),
        (DATA, whole, ""),
        (TRAIN, struct.pack("<H", 10), "out of range"),  # a label too far
        (DATA, whole, ""),
        (TRAIN, struct.pack("<H", 0xFFFF), "out of range"),
        (READ, struct.pack("<BIB", RESERVED + 1, 0, 100), "out of range"),
        (TARGET, bytes(8), "out of range"),  # this head is trained on classes
        (READ, struct.pack("<BIB", NORMS, 1 << 20, 100), "out of range"),
        (READ, struct.pack("<BIB", NORMS, 2**32 - 1, 100), "out of range"),
        (READ, b"\1", "out of range"),
        (FORCE, one, "damaged"),
        (FORCE, every, "arena does not fit"),
        (FORCE, too_many, "out of range"),
        (BEGIN, TRAINING.fields(0)[:-1], "damaged"),
        (99, b"", "out of range"),
    ]
    with host(sanitized, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        for command in (DATA, TRAIN, COMMIT, READ, DIGESTS, FORCE):
            with pytest.raises(LinkError, match="does not fit the state"):  # BEGIN comes first
                session.link.request(command)
        session.begin(TRAINING)
        start = session.digests()
        for command, fields, why in refused:
            if why:
                with pytest.raises(LinkError, match=why):
                    session.link.request(command, fields)
            else:
                session.link.request(command, fields)
        assert session.digests() == start
        results = [session.train(samples.x[i], int(samples.y[i])) for i in range(STEPS)]
        assert tuple(r.loss for r in results) == clean.losses[:STEPS]
        assert session.digests() == clean.digests[0]


def test_another_protocol_is_refused_and_the_session_goes_on(digitnet_host: Compiled, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        assert answer(program, frame(1, HELLO, protocol=1))[3] == 7
        assert answer(program, frame(2, EXIT, protocol=PROTOCOL + 1))[3] == 7
        assert answer(program, frame(3, HELLO))[3] == 0


@pytest.mark.parametrize(("at", "value"), [(4, 65536), (4, 2**32 - 1), (8, 65), (8, -65), (8, -(2**31))], ids=str)
def test_a_learning_rate_out_of_range_is_refused(sanitized: Compiled, tmp_path: Path, at: int, value: int) -> None:
    fields = bytearray(TRAINING.fields(0))
    struct.pack_into("<q", wide := bytearray(8), 0, value)
    fields[at : at + 4] = wide[:4]
    with host(sanitized, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        with pytest.raises(LinkError, match="out of range"):
            session.link.request(BEGIN, bytes(fields))
        with pytest.raises(LinkError, match="does not fit the state"):
            session.digests()
        assert session.begin(TRAINING).epochs == 0


def test_a_sample_of_another_size_is_not_sent(digitnet_host: Compiled, samples: Samples, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        session.begin(TRAINING)
        with pytest.raises(LinkError, match="takes 256 B"):
            session.train(samples.x[0][:8], 0)


def test_exit_ends_the_program_without_an_error(digitnet_host: Compiled, tmp_path: Path) -> None:
    with host(digitnet_host, tmp_path / "flash.bin") as program:
        Session(Link(program, PATIENCE)).exit()
        assert program.process is not None
        assert program.process.wait(10) == 0
