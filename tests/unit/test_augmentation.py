# SPDX-License-Identifier: Apache-2.0
"""Samples that are mirrored and moved at random, and labels that are smoothed: SPEC, sections 1.10 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Cli
from medyate import datasets, rng
from medyate.plan.budget import Limits
from medyate.run.link import RefusedError
from medyate.run.session import BEGIN, Session, Training
from medyate.run.train import Compiled, connect
from medyate.stages import Options, compile_model
from shared_files import ROOT, Samples

STEPS = 40
TRAINING = Training(0.02, 2, STEPS, "constant", seed=4)


@pytest.fixture(scope="module")
def by_rows(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The program of `digitnet_host`, but for the place of the sample."""
    out = tmp_path_factory.mktemp("rows")
    options = Options("host", Limits(64 << 10, sample="rows"), rank_epochs=1)
    compile_model(ROOT / "models" / "digitnet" / "digitnet.onnx", datasets.load("digits"), options, out)
    return Compiled.read(out)


@contextmanager
def session_of(compiled: Compiled, flash: Path, training: Training) -> Iterator[Session]:
    with connect(compiled, "host", flash) as session:
        session.begin(training)
        yield session


def augmented(x: NDArray[np.int8], step: int, *, flip: bool, shift: int, zero: int) -> NDArray[np.int8]:
    """What step number `step` of TRAINING makes of a sample."""
    mirrored = flip and rng.draw(rng.key(TRAINING.seed, rng.FLIP, step, 0), 0) & 1
    image = x[:, ::-1] if mirrored else x
    key = rng.key(TRAINING.seed, rng.SHIFT, step, 0)
    distances = [min(shift, side // 2) for side in x.shape[:2]]
    down, right = ((rng.draw(key, axis) * (2 * d + 1) >> 32) - d for axis, d in enumerate(distances))
    moved = np.full_like(image, zero)
    height, width = x.shape[:2]
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


@pytest.mark.parametrize(("flip", "shift"), [(False, 1), (True, 3), (False, 31)])
def test_a_step_on_a_moved_sample_is_a_step_on_what_the_host_moves(
    digitnet_host: Compiled, by_rows: Compiled, samples: Samples, tmp_path: Path, *, flip: bool, shift: int
) -> None:
    zero = int(digitnet_host.model["input"][1])
    own = [augmented(samples.x[i], i, flip=flip, shift=shift, zero=zero) for i in range(STEPS)]
    assert len({x.tobytes() for x in own}) == STEPS and any((x != samples.x[i]).any() for i, x in enumerate(own))
    with session_of(digitnet_host, tmp_path / "own.bin", TRAINING) as session:
        expected = [session.train(x, int(samples.y[i])) for i, x in enumerate(own)]
        digests = session.digests()
    for compiled in (digitnet_host, by_rows):
        asked = replace(TRAINING, flip=flip, shift=shift)
        with session_of(compiled, tmp_path / f"{compiled.plan['sample']}.bin", asked) as session:
            for i in range(STEPS):
                assert session.train(samples.x[i], int(samples.y[i])).loss == expected[i].loss, i
            assert (session.digests().losses, session.digests().selections) == (digests.losses, digests.selections)
            session.infer(samples.x[0])  # as it is: inference moves nothing
            logits = session.logits()
        with session_of(compiled, tmp_path / "plain.bin", asked) as session:
            session.infer(own[0])
            assert (session.logits() == 0).all() and (logits != 0).any()  # and starts from a head of zeros


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_a_smoothed_label_is_what_the_network_learns(
    digitnet_host: Compiled, samples: Samples, tmp_path: Path, smoothing: float
) -> None:
    """Taught one sample again and again, it gives each class its share of the label."""
    asked = replace(TRAINING, rate=0.01, head_only=True, smoothing=smoothing)
    label, classes = int(samples.y[0]), 10
    with session_of(digitnet_host, tmp_path / "flash.bin", asked) as session:
        for _ in range(1000):
            loss = session.train(samples.x[0], label).loss
        session.infer(samples.x[0])
        shares = np.exp(session.logits() / 65536)
    kept = round(smoothing * 256) / 256
    target = np.full(classes, kept / classes) + np.eye(classes)[label] * (1 - kept)
    assert shares / shares.sum() == pytest.approx(target, abs=0.005)
    assert loss == pytest.approx(-np.log(target[label]), abs=0.01)  # of the label itself


def test_what_the_device_does_not_do_is_refused(digitnet_host: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    with connect(digitnet_host, "host", tmp_path / "flash.bin") as session:
        for shift, smoothing in ((32, 0), (0, 129), (255, 255)):
            with pytest.raises(RefusedError):
                session.link.request(BEGIN, TRAINING.fields(0)[:-2] + bytes([shift, smoothing]))
        session.link.request(BEGIN, TRAINING.fields(0)[:-2] + bytes([31, 128]))
    given = ("run", digitnet_host.folder, "--data", "digits", "--flash", tmp_path / "a.bin")
    for option, value in (("--shift", 32), ("--shift", -1), ("--smoothing", 0.51), ("--smoothing", -0.1)):
        ended = run_cli(*given, option, value)
        assert ended.code == 2 and option in ended.err


def test_a_training_goes_on_with_the_moves_and_labels_that_it_began_with(
    digitnet_host: Compiled, samples: Samples, tmp_path: Path
) -> None:
    asked = replace(TRAINING, flip=True, shift=2, smoothing=0.1)
    flash = tmp_path / "flash.bin"
    with session_of(digitnet_host, flash, asked) as session:
        session.train(samples.x[0], int(samples.y[0]))
        session.commit()
    with connect(digitnet_host, "host", flash) as session:
        position = session.begin(replace(TRAINING, fresh=False))
        assert position.settings == asked.settings()
        assert (position.settings.flip, position.settings.shift) == (True, 2)
        assert position.settings.smoothing == pytest.approx(0.1, abs=1 / 512)
