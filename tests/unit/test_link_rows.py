# SPDX-License-Identifier: Apache-2.0
"""Samples that come by rows, in the middle of a step: the same training, on any line, whatever else is sent."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_link import FAULTS, PATIENCE, STEPS, TRAINING, Noise, Work, answer, frame, host, train

from medyate import datasets
from medyate.errors import LinkError
from medyate.plan.budget import Limits
from medyate.run.link import Link
from medyate.run.session import COMMIT, DATA, DIGESTS, HELLO, INFER, READ, TRAIN, Session
from medyate.run.train import Compiled
from medyate.stages import Options, compile_model
from shared_files import ROOT, Samples


@pytest.fixture(scope="module")
def by_rows(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The program of `digitnet_host`, but for the place of the sample."""
    out = tmp_path_factory.mktemp("rows")
    options = Options("host", Limits(64 << 10, sample="rows"), rank_epochs=1)
    compile_model(ROOT / "models" / "digitnet" / "digitnet.onnx", datasets.load("digits"), options, out)
    return Compiled.read(out)


@pytest.fixture(scope="module")
def whole(digitnet_host: Compiled, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Work:
    with host(digitnet_host, tmp_path_factory.mktemp("whole") / "flash.bin") as program:
        return train(Session(Link(program, PATIENCE)), samples)


def alike(work: Work, other: Work) -> bool:
    """But for the flash, whose header names another plan."""
    return without_flash(work) == without_flash(other)


def without_flash(work: Work) -> Work:
    before, after = (dataclasses.replace(digests, flash=0) for digests in work.digests)
    return dataclasses.replace(work, digests=(before, after))


def test_the_sample_has_no_place_of_its_own(by_rows: Compiled, digitnet_host: Compiled) -> None:
    assert by_rows.plan["sample"] == "rows" and digitnet_host.plan["sample"] == "whole"
    assert [c["layer"] for c in by_rows.plan["candidates"]] == [c["layer"] for c in digitnet_host.plan["candidates"]]


def test_rows_train_as_a_whole_sample_does(by_rows: Compiled, samples: Samples, whole: Work, tmp_path: Path) -> None:
    with host(by_rows, tmp_path / "flash.bin") as program:
        assert alike(train(Session(Link(program, PATIENCE)), samples), whole)


def test_a_line_that_loses_frames_changes_nothing(
    by_rows: Compiled, samples: Samples, whole: Work, tmp_path: Path
) -> None:
    faults = Counter[tuple[str, str]]()
    for seed in range(6):
        with host(by_rows, tmp_path / f"{seed}.bin") as program:
            noise = Noise(program, seed, 0.05, buffered=True)
            assert alike(train(Session(Link(noise, PATIENCE)), samples), whole)
            faults += noise.faults
    assert len(faults) >= len(FAULTS), faults


def piece(samples: Samples, number: int, begin: int, end: int) -> bytes:
    return struct.pack("<I", begin) + samples.x[number].tobytes()[begin:end]


def test_pieces_of_any_size_fill_the_rows(by_rows: Compiled, samples: Samples, whole: Work, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    with host(by_rows, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        session.begin(TRAINING)
        for number in range(STEPS):
            cuts = np.sort(random.integers(0, 256, 9)).tolist()
            session.link.request(TRAIN, struct.pack("<H", samples.y[number]))
            for begin, end in zip([0, *cuts], [*cuts, 256], strict=True):
                reply = session.link.request(DATA, piece(samples, number, begin, end))
            assert struct.unpack("<I", reply[:4])[0] / 65536 == whole.losses[number]


def test_a_repeated_piece_is_taken_once(by_rows: Compiled, samples: Samples, whole: Work, tmp_path: Path) -> None:
    with host(by_rows, tmp_path / "flash.bin") as program:
        answer(program, frame(1, 2, TRAINING.fields(0xA5)))
        start = frame(2, TRAIN, struct.pack("<H", samples.y[0]))
        assert answer(program, start) == answer(program, start)
        first, last = frame(3, DATA, piece(samples, 0, 0, 100)), frame(4, DATA, piece(samples, 0, 100, 256))
        assert answer(program, first) == answer(program, first)
        result = answer(program, last)
        assert result == answer(program, last) == answer(program, last)
        assert struct.unpack("<I", result[6:10])[0] / 65536 == whole.losses[0]


@pytest.mark.parametrize("command", [HELLO, TRAIN, INFER, COMMIT, READ, DIGESTS, 99])
def test_another_request_in_the_middle_ends_the_step_and_is_carried_out(
    by_rows: Compiled, samples: Samples, whole: Work, tmp_path: Path, command: int
) -> None:
    with host(by_rows, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        session.begin(TRAINING)
        session.link.request(TRAIN, struct.pack("<H", samples.y[0]))
        session.link.request(DATA, piece(samples, 0, 0, 64))
        if command == 99:
            with pytest.raises(LinkError, match="out of range"):
                session.link.request(command, bytes(6))
        else:
            session.link.request(command, bytes(6))
        assert session.train(samples.x[0], int(samples.y[0])).loss == whole.losses[0]


@pytest.mark.parametrize("fields", [struct.pack("<I", 8) + bytes(8), bytes(3), struct.pack("<I", 0) + bytes(257)])
def test_a_piece_that_does_not_follow_ends_the_step(
    by_rows: Compiled, samples: Samples, whole: Work, tmp_path: Path, fields: bytes
) -> None:
    with host(by_rows, tmp_path / "flash.bin") as program:
        session = Session(Link(program, PATIENCE))
        session.begin(TRAINING)
        session.link.request(TRAIN, struct.pack("<H", samples.y[0]))
        with pytest.raises(LinkError, match="does not fit the state"):
            session.link.request(DATA, fields)
        with pytest.raises(LinkError, match="does not fit the state"):  # outside of a step
            session.link.request(DATA, piece(samples, 0, 0, 64))
        with pytest.raises(LinkError, match="out of range"):  # a label too far, before the sample is sent
            session.link.request(TRAIN, struct.pack("<H", 10))
        assert session.train(samples.x[0], int(samples.y[0])).loss == whole.losses[0]


def test_rows_are_mirrored_as_a_whole_sample_is(
    by_rows: Compiled, digitnet_host: Compiled, samples: Samples, whole: Work, tmp_path: Path
) -> None:
    losses = []
    for number, compiled in enumerate((by_rows, digitnet_host)):
        with host(compiled, tmp_path / f"{number}.bin") as program:
            session = Session(Link(program, PATIENCE))
            session.begin(dataclasses.replace(TRAINING, flip=True))
            losses.append([session.train(samples.x[i], int(samples.y[i])).loss for i in range(STEPS)])
    assert losses[0] == losses[1] != list(whole.losses[:STEPS])
