# SPDX-License-Identifier: Apache-2.0
"""A board that is reset in the middle of a training: it is noticed, and the training goes on from the last commit."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from test_link_line import replies

from conftest import Cli
from frames import frame
from line import Line
from medyate import artefact, datasets
from medyate.errors import ArtefactError, LinkError
from medyate.run.link import HEAD, PROTOCOL, SESSION, Link, RestartedError
from medyate.run.session import BEGIN, DIGESTS, HELLO, Session, Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.run.transport import HostProgram, SerialPort
from shared_files import Samples

TRAINING = Training(0.02, 3, 20, seed=4)
STEP = 300
"""Bytes that a sample and its step take, about."""


def go(compiled: Compiled, data_: Path, line: Line, flash: Path, **more: object) -> tuple[dict[str, object], list[str]]:
    told: list[str] = []
    options = RunOptions(line.port, TRAINING, flash, evaluate_each=False, measure=False, tell=told.append)
    return run(compiled, datasets.load(str(data_)), replace(options, **more), lambda _: None), told  # type: ignore[arg-type]


def learned(log: dict[str, object]) -> list[str]:
    """State and flash: the other digests begin anew with the program."""
    return str(log["digest"]).split("-")[3:]


@pytest.fixture(scope="module")
def whole(
    digitnet_host: Compiled, small_digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], int]:
    flash = tmp_path_factory.mktemp("whole") / "flash.bin"
    with Line(digitnet_host.image, flash) as line:
        log, told = go(digitnet_host, small_digits, line, flash)
        assert not told
        return log, line.carried


@pytest.mark.parametrize("parts", [(0.1,), (0.4,), (0.5,), (0.62,), (0.7,), (0.97,), (0.4, 0.75)], ids=str)
def test_a_restart_at_any_time_changes_nothing_that_is_learned(
    digitnet_host: Compiled,
    small_digits: Path,
    whole: tuple[dict[str, object], int],
    tmp_path: Path,
    parts: tuple[float, ...],
) -> None:
    flash = tmp_path / "flash.bin"
    restarts = tuple(int(part * whole[1]) for part in parts)
    with Line(digitnet_host.image, flash, restarts=restarts, banner=b"boot: board 1.2\r\n") as line:
        log, told = go(digitnet_host, small_digits, line, flash)
        assert line.restarted == len(parts)
    assert learned(log) == learned(whole[0])
    assert [t for t in told if "restarted; the training goes on from its last commit" in t]
    for entry, expected in zip(log["history"], whole[0]["history"], strict=True):  # type: ignore[call-overload]
        assert entry == expected
    assert log["accuracy_after"] == whole[0]["accuracy_after"]


def test_a_restart_in_the_first_epoch_does_not_take_an_older_training_for_this_one(
    digitnet_host: Compiled, small_digits: Path, whole: tuple[dict[str, object], int], tmp_path: Path
) -> None:
    flash = tmp_path / "flash.bin"
    options = RunOptions("host", replace(TRAINING, epochs=1, seed=9), flash, evaluate_each=False, measure=False)
    run(digitnet_host, datasets.load(str(small_digits)), options, lambda _: None)
    with Line(digitnet_host.image, flash, restarts=(int(0.3 * whole[1]),)) as line:
        log, told = go(digitnet_host, small_digits, line, flash, overwrite=True)
    assert len(told) == 1 and "after 0 epochs" in told[0]
    assert learned(log)[0] == learned(whole[0])[0]


def test_no_resume_ends_the_run(
    digitnet_host: Compiled, small_digits: Path, whole: tuple[dict[str, object], int], tmp_path: Path
) -> None:
    flash = tmp_path / "flash.bin"
    with (
        Line(digitnet_host.image, flash, restarts=(int(0.5 * whole[1]),)) as line,
        pytest.raises(RestartedError, match="the target restarted"),
    ):
        go(digitnet_host, small_digits, line, flash, go_on=False)


def test_a_target_that_restarts_again_and_again_is_given_up(
    digitnet_host: Compiled, small_digits: Path, whole: tuple[dict[str, object], int], tmp_path: Path
) -> None:
    flash = tmp_path / "flash.bin"
    start = int(0.5 * whole[1])
    with (
        Line(digitnet_host.image, flash, restarts=tuple(start + 6 * STEP * i for i in range(4))) as line,
        pytest.raises(LinkError, match="restarted 4 times without a commit"),
    ):
        go(digitnet_host, small_digits, line, flash)


def test_a_request_of_a_session_that_is_not_open_changes_nothing(digitnet_host: Compiled, tmp_path: Path) -> None:
    with HostProgram(digitnet_host.image, tmp_path / "flash.bin") as program:
        (refused,) = replies(program, frame(5, DIGESTS, session=0x0101))
        assert refused == HEAD.pack(PROTOCOL, 5, DIGESTS, SESSION, 0x0101) + bytes(2)
        replies(program, frame(1, HELLO, session=0x0202))
        replies(program, frame(2, BEGIN, TRAINING.fields(0), session=0x0202))
        (digests,) = replies(program, frame(3, DIGESTS, session=0x0202))
        (refused,) = replies(program, frame(6, DIGESTS, session=0x0101))
        assert refused[3] == SESSION and struct.unpack("<H", refused[6:]) == (0x0202,)
        assert replies(program, frame(3, DIGESTS, session=0x0202)) == [digests]  # the kept answer


def test_two_hosts_on_one_line_are_told_apart(digitnet_host: Compiled, samples: Samples, tmp_path: Path) -> None:
    with Line(digitnet_host.image, tmp_path / "flash.bin") as line, SerialPort(line.name) as port:
        first, second = Session(Link(port)), Session(Link(port))
        second.begin(TRAINING)
        with pytest.raises(LinkError, match="another host has opened a session"):
            first.begin(TRAINING)
        second.train(samples.x[0], int(samples.y[0]))


def test_a_second_run_in_one_folder_is_refused(
    digitnet_host: Compiled, small_digits: Path, run_cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(digitnet_host.folder, out)
    with artefact.lock(out, ArtefactError("never", "seen")):
        ended = run_cli("run", out, "--data", small_digits, "--epochs", 1)
        assert ended.code == 2 and "another run uses" in ended.err
    command = (
        "run",
        out,
        "--data",
        small_digits,
        "--rate",
        0.01,
        "--epochs",
        1,
        "--no-measure",
        "--limit",
        2,
        "--evaluate-at-end",
    )
    assert run_cli(*command).code == 0
