# SPDX-License-Identifier: Apache-2.0
"""The link on real lines: bytes that go wrong or come late, text, noise, echoes, no board; a target that lies."""

from __future__ import annotations

import math
import os
import pty
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cobs import cobs

from frames import frame
from line import Line
from medyate.errors import LinkError
from medyate.run.link import BAD_SECONDS, DATA_BYTES, HEAD, PROTOCOL, UNENDED_BYTES, Link, Timer, decode, encode
from medyate.run.session import (
    BEGIN,
    COMMIT,
    DIGESTS,
    HELLO,
    MARKS,
    READ,
    TRAIN,
    Session,
    Training,
)
from medyate.run.train import Compiled, connect
from medyate.run.transport import HostProgram, SerialPort
from shared_files import Samples

STEPS, LONG = 30, 150
TRAINING = Training(0.02, 1, LONG, "constant", seed=4)


def train(compiled: Compiled, samples: Samples, line: Line, steps: int = STEPS) -> tuple[float, str]:
    """(seconds, digest) of one epoch and as many inferences."""
    start = time.monotonic()
    with connect(compiled, line.port, Path("unused")) as session:
        session.begin(TRAINING)
        order = [i % len(samples.x) for i in range(steps)]
        for i in order:
            session.train(samples.x[i], int(samples.y[i]))
        session.commit()
        for i in order:
            session.infer(samples.x[i], int(samples.y[i]))
        return time.monotonic() - start, str(session.digests())


@pytest.fixture(scope="module")
def clean(digitnet_host: Compiled, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, str]:
    with Line(digitnet_host.image, tmp_path_factory.mktemp("clean") / "flash.bin") as line:
        return train(digitnet_host, samples, line)


@pytest.mark.parametrize(("bad", "most"), [(0.001, 3.0), (0.01, 20.0)])
def test_a_bad_line_costs_time_and_nothing_else(
    digitnet_host: Compiled, samples: Samples, tmp_path: Path, bad: float, most: float
) -> None:
    """The median of three lines, each beside a clean one of its own: what else the machine does comes and goes."""
    ratios, digests = [], set()
    for seed in range(3):
        with Line(digitnet_host.image, tmp_path / f"clean{seed}.bin") as line:
            beside, digest = train(digitnet_host, samples, line, LONG)
            digests.add(digest)
        with Line(digitnet_host.image, tmp_path / f"{seed}.bin", bad, seed=seed) as line:
            seconds, digest = train(digitnet_host, samples, line, LONG)
            assert line.damaged > 5
        digests.add(digest)
        ratios.append((seconds - 1.0) / beside)  # a second for what else the machine does
    assert len(digests) == 1
    assert sorted(ratios)[1] < most


def test_a_line_that_is_too_bad_is_said_to_be(
    digitnet_host: Compiled, samples: Samples, clean: tuple[float, str], tmp_path: Path
) -> None:
    start = time.monotonic()
    with Line(digitnet_host.image, tmp_path / "flash.bin", 0.05, seed=1) as line:
        try:
            assert train(digitnet_host, samples, line)[1] == clean[1]
        except LinkError as error:
            assert "the line is too bad" in error.what, error.what
    assert time.monotonic() - start < 60


def test_a_late_line_is_no_bad_one(digitnet_host: Compiled, samples: Samples, tmp_path: Path) -> None:
    digests = set()
    for delay in (0.0, 0.05):
        with Line(digitnet_host.image, tmp_path / f"{delay}.bin", delay=delay) as line:
            digests.add(train(digitnet_host, samples, line, steps=8)[1])
    assert len(digests) == 1


def test_frames_become_as_short_as_the_line_needs(digitnet_host: Compiled, samples: Samples, tmp_path: Path) -> None:
    lengths = []
    for bad in (0.0, 0.002, 0.02):
        with Line(digitnet_host.image, tmp_path / f"{bad}.bin", bad, seed=3) as line, SerialPort(line.name) as port:
            session = Session(Link(port))
            session.begin(TRAINING)
            for i in range(STEPS):
                session.infer(samples.x[i])
            lengths.append(session.link.piece)
    assert lengths[0] == DATA_BYTES > lengths[1] > lengths[2] >= 16


def test_a_request_is_repeated_soon_after_its_usual_time() -> None:
    timer = Timer(0.1, shortest=0.010)
    for _ in range(20):
        timer.answered(0.010)
    assert 0.010 < timer.wait < 0.020
    timer.silent()
    doubled = timer.wait
    assert 0.020 < doubled < 0.040
    for _ in range(20):
        timer.silent()
    assert doubled < timer.wait <= 0.1  # bounded: what is lost by chance is not lost because of haste
    timer.answered(0.010)
    assert timer.wait < 0.020


def test_a_line_that_becomes_slow_is_not_flooded_for_long(
    digitnet_host: Compiled, samples: Samples, tmp_path: Path
) -> None:
    with Line(digitnet_host.image, tmp_path / "flash.bin") as line, SerialPort(line.name) as port:
        session = Session(Link(port))
        session.begin(TRAINING)
        for i in range(10):
            session.infer(samples.x[i])
        line.delay = 0.1
        for i in range(20):
            session.infer(samples.x[i])
        carried = line.carried
        session.infer(samples.x[0])
        assert line.carried - carried < 2 * 320  # a sample and its request, once; twice on a busy machine


# What else may be on a line


class Chatter:
    """Gives back whatever `say` says."""

    buffered = False

    def __init__(self, say: Callable[[], bytes]) -> None:
        self.say, self.sent = say, b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def read(self, timeout: float) -> bytes:
        time.sleep(min(timeout, 0.01))
        return self.say()


def echo(chatter: Chatter) -> bytes:
    said, chatter.sent = chatter.sent, b""
    return said


RANDOM = np.random.default_rng(1)
OLDER = bytes([PROTOCOL - 1, 1, HELLO, 0]) + bytes(44)


@pytest.mark.parametrize(
    ("say", "said"),
    [
        (lambda: b"I (123) app: temperature 23.4\r\n", "prints text: .*temperature"),
        (lambda: b"boot: ok\r\n\0", "prints text: .*boot"),
        (lambda: b"\xff" * 500, "bytes came that are no frame"),
        (lambda: RANDOM.integers(1, 256, 700, np.uint8).tobytes(), "that are no frame|too bad"),
        (lambda: RANDOM.integers(0, 256, 700, np.uint8).tobytes(), "that are no frame|too bad"),
        (lambda: bytes(700), "did not answer within 1 s. Check"),
        (lambda: b"", "did not answer within 1 s. Check"),
        (lambda: encode(OLDER), f"speaks protocol {PROTOCOL - 1}"),
        (lambda: encode(HEAD.pack(PROTOCOL, 1, HELLO, 0, 0) + bytes(44)), "did not answer"),  # another session's
    ],
    ids=range(9),
)
def test_what_is_no_answer_is_said_and_kept_out_of_memory(say: Callable[[], bytes], said: str) -> None:
    link, start = Link(Chatter(say), 1.0), time.monotonic()
    with pytest.raises(LinkError, match=said):
        Session(link)
    assert time.monotonic() - start < 2.0
    assert len(link._buffer) <= 2 * UNENDED_BYTES


def test_an_echo_is_no_answer() -> None:
    chatter = Chatter(lambda: echo(chatter))
    with pytest.raises(LinkError, match="gives back what is sent"):
        Session(Link(chatter, 1.0))


class Talkative(HostProgram):
    """Prints between the frames, on the same line."""

    def read(self, timeout: float) -> bytes:
        return b"I (7) app: hello\r\n" + super().read(timeout) + b"\x1b[0mW (8) app: low battery\r\n"


def test_text_between_the_answers_changes_nothing(
    digitnet_host: Compiled, samples: Samples, clean: tuple[float, str], tmp_path: Path
) -> None:
    with Talkative(digitnet_host.image, tmp_path / "flash.bin") as program:
        session = Session(Link(program))
        session.begin(TRAINING)
        for i in range(STEPS):
            session.train(samples.x[i], int(samples.y[i]))
        session.commit()
        for i in range(STEPS):
            session.infer(samples.x[i], int(samples.y[i]))
        assert str(session.digests()) == clean[1]
        assert (session.link.line.noise, session.link.line.damaged) == (0, 0)  # it spoilt no frame


def replies(program: HostProgram, sent: bytes, seconds: float = 0.3) -> list[bytes]:
    """All that comes."""
    program.write(sent)
    received, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        received += program.read(0.05)
    return [body for part in received.split(b"\0") if part and (body := decode(part)) is not None]


def test_the_target_ignores_what_is_not_its_own(digitnet_host: Compiled, tmp_path: Path) -> None:
    with HostProgram(digitnet_host.image, tmp_path / "flash.bin") as program:
        (hello,) = replies(program, frame(1, HELLO, session=0x1234))
        assert hello[:6] == bytes([PROTOCOL, 1, HELLO, 0, 0x34, 0x12])
        foreign = [
            b"root@board:~# ls\r\n",
            b"\0\0\0",
            RANDOM.integers(0, 256, 3000, np.uint8).tobytes(),
            encode(hello),  # its own reply, echoed
            b"\0" + cobs.encode(b"\x7eppp frame of another protocol\x7e") + b"\0",
            b"\xff" * 4000,
        ]
        assert replies(program, b"\0".join(foreign) + b"\0") == []
        assert [body[:4] for body in replies(program, frame(2, MARKS, session=0x1234))] == [
            bytes([PROTOCOL, 2, MARKS, 3])
        ]


def test_a_damaged_frame_of_its_own_is_asked_for_again_at_once(digitnet_host: Compiled, tmp_path: Path) -> None:
    with HostProgram(digitnet_host.image, tmp_path / "flash.bin") as program:
        replies(program, frame(1, HELLO, session=0x1234))
        good = frame(2, READ, bytes(300), session=0x1234)
        bad = good[:200] + bytes([good[200] ^ 0x55]) + good[201:]
        (asked,) = replies(program, bad)
        assert (asked[2], asked[3], asked[4:6]) == (0, 7, b"\x34\x12")
        (kept,) = replies(program, frame(1, HELLO, session=0x1234))  # the last answer is still there
        assert kept[:4] == bytes([PROTOCOL, 1, HELLO, 0])


# A port


def test_an_unplugged_board_is_one_sentence(digitnet_host: Compiled, samples: Samples, tmp_path: Path) -> None:
    with (
        Line(digitnet_host.image, tmp_path / "flash.bin") as line,
        pytest.raises(LinkError, match=f"'{line.name}' is gone"),
        connect(digitnet_host, line.port, Path("unused")) as session,
    ):
        session.begin(TRAINING)
        threading.Timer(0.3, line.unplug).start()
        while True:
            session.infer(samples.x[0])


def test_a_port_that_is_in_use_is_refused() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    with SerialPort(name), pytest.raises(LinkError, match="in use by another program"):
        SerialPort(name)
    SerialPort(name).close()
    os.close(ours)
    os.close(theirs)


def test_a_port_that_takes_nothing_is_given_up() -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with SerialPort(os.ttyname(theirs)) as port:
        port._port.write_timeout = 0.2
        with pytest.raises(LinkError, match="is gone"):
            port.write(bytes(1 << 20))
    os.close(ours)
    os.close(theirs)


# A target that lies


class Liar:
    """Answers every request with the fields that `fields` gives for its command."""

    buffered = True

    def __init__(self, fields: Callable[[int], tuple[int, bytes]]) -> None:
        self.fields, self.answers = fields, b""

    def write(self, data: bytes) -> None:
        for part in data.split(b"\0"):
            if part:
                body = decode(part)
                assert body is not None
                status, fields = self.fields(body[2])
                self.answers += encode(body[:3] + bytes([status]) + body[4:6] + fields)

    def read(self, timeout: float) -> bytes:
        said, self.answers = self.answers, b""
        return said


HELLO_WORDS = struct.pack("<13I", 5, 1, 256, 10, 40, 3, 0, 8, 4096, 0, 0, 1, 0)
POSITION_WORDS = struct.pack("<6Ii5I9II", *([0] * 22))
RESULT_WORDS = struct.pack("<4I", 0, 3, 0, 0)
HONEST = {
    HELLO: HELLO_WORDS,
    BEGIN: POSITION_WORDS,
    3: struct.pack("<I", 256),
    TRAIN: RESULT_WORDS,
    COMMIT: POSITION_WORDS,
    DIGESTS: bytes(20),
    MARKS: bytes(24),
}


def use(session: Session) -> None:
    """Every kind of answer."""
    session.begin(TRAINING)
    session.train(np.zeros(256, np.int8), 0)
    session.commit()
    session.digests()
    session.marks()


def word(layout: bytes, at: int, value: int) -> bytes:
    return layout[: 4 * at] + struct.pack("<I", value) + layout[4 * at + 4 :]


def lies() -> Iterator[tuple[int, bytes]]:
    for command, honest in HONEST.items():
        for short in (0, 1, len(honest) - 1):
            yield command, honest[:short]
        yield command, honest + b"\0"
    yield HELLO, word(HELLO_WORDS, 2, 0)
    yield HELLO, word(HELLO_WORDS, 2, 2**32 - 1)
    yield HELLO, word(HELLO_WORDS, 10, 7)
    yield HELLO, word(HELLO_WORDS, 11, 3)
    yield TRAIN, word(RESULT_WORDS, 1, 10)
    for command in (BEGIN, COMMIT):
        for at, value in ((6, 2**31 - 1), (10, 1 << 20), (12, 2), (13, 6), (17, 2**32 - 1)):
            yield command, word(POSITION_WORDS, at, value)


@pytest.mark.parametrize(("command", "lie"), list(lies()))
def test_an_impossible_answer_is_an_error_of_the_link(command: int, lie: bytes) -> None:
    use(Session(Link(Liar(lambda asked: (0, HONEST[asked])))))
    with pytest.raises(LinkError):
        use(Session(Link(Liar(lambda asked: (0, lie if asked == command else HONEST[asked])), 1.0)))


@pytest.mark.parametrize("status", [1, 6, 9, 10, 99, 254])
@pytest.mark.parametrize("command", list(HONEST))
def test_an_impossible_status_is_an_error_of_the_link(command: int, status: int) -> None:
    for fields in (b"", b"\0", bytes(2), bytes(88)):
        answers = Liar(lambda asked, f=fields: (status, f) if asked == command else (0, HONEST[asked]))  # type: ignore[misc]
        with pytest.raises(LinkError):
            use(Session(Link(answers, 1.0)))


@pytest.mark.parametrize("call", ["logits", "norms", "selection"])
def test_an_array_that_does_not_end_or_has_another_size_is_an_error(call: str) -> None:
    for part in (bytes(1), bytes(3), bytes(154), bytes(155)):
        session = Session(Link(Liar(lambda asked, p=part: (0, p if asked == READ else HONEST[asked]))))  # type: ignore[misc]
        with pytest.raises(LinkError, match="makes no sense"):
            getattr(session, call)()


def test_patience_with_work_follows_from_what_it_took() -> None:
    link = Link(Chatter(lambda: b""))
    timer = link._timer(TRAIN, "step", 20)
    assert link._patience(timer, "step") == 120.0
    timer.answered(0.1)
    assert link._patience(timer, "step") == 30.0
    timer.answered(6.0)
    assert link._patience(timer, "step") == 120.0
    assert link._patience(link._timer(3, "", 20), "") == 10.0
    assert BAD_SECONDS < 60 and math.isinf(link.bytes_per_second)
