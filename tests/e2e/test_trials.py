# SPDX-License-Identifier: Apache-2.0
"""A rate found by trials on the target leaves no trace but the rate."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Cli
from medyate.data import load
from medyate.errors import DataError
from medyate.run.link import RefusedError
from medyate.run.session import BEGIN, Training
from medyate.run.train import Compiled, RunOptions, Tick, connect, run
from medyate.run.trials import CLIPS, RATES

TRAINING = Training(0.5, 2, 40, seed=7, flip=True)


def options(flash: Path, training: Training, said: list[str] | None = None) -> RunOptions:
    tell = said.append if said is not None else lambda _: None
    return RunOptions("host", training, flash, measure=False, find_rate=said is not None, tell=tell)


@pytest.mark.parametrize("head_only", [False, True])
def test_a_found_rate_trains_like_a_given_one(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path, *, head_only: bool
) -> None:
    data, said, ticks = load(str(small_digits)), list[str](), list[Tick]()
    training = replace(TRAINING, head_only=head_only)
    found = run(digitnet_host, data, options(tmp_path / "a.bin", training, said), ticks.append)
    trials = found["rate_trials"]
    assert sorted((t["rate"], t["clip"]) for t in trials) == [(r, c) for r in RATES for c in CLIPS[: 2 - head_only]]
    assert [t["loss"] for t in trials] == sorted(t["loss"] for t in trials)
    assert (found["rate"], found["clip"]) == (trials[0]["rate"], trials[0]["clip"])
    assert f"rate {found['rate']:g} and clip {found['clip']:g}" in said[0]
    assert [t.done for t in ticks if t.phase == "trying rates"] == list(range(1, len(trials) + 1))
    given = replace(training, rate=found["rate"], clip=found["clip"])
    again = run(digitnet_host, data, options(tmp_path / "b.bin", given), lambda _: None)
    assert again["rate_trials"] == []
    assert {**again, "rate_trials": trials} == found


def test_a_refused_resume_says_with_what_it_would_go_on(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    data, flash = load(str(small_digits)), tmp_path / "flash.bin"

    def stop(tick: Tick) -> None:
        if tick.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(digitnet_host, data, options(flash, replace(TRAINING, rate=0.0123, clip=0.3)), stop)
    resumed = replace(TRAINING, fresh=False, rate=0.5)
    with pytest.raises(DataError) as refused:
        run(digitnet_host, data, options(flash, resumed), lambda _: None)
    rate, clip = (
        float(word) for word in re.findall(r"rate is ([\d.e-]+), its clip ([\d.e-]+)\.", str(refused.value))[0]
    )
    told = replace(resumed, rate=rate, clip=clip)
    assert told.settings() == replace(TRAINING, rate=0.0123, clip=0.3).settings()
    assert run(digitnet_host, data, options(flash, told), lambda _: None)["epochs"] == 1


def test_too_few_samples_to_try_on_are_refused(digitnet_host: Compiled, small_digits: Path, tmp_path: Path) -> None:
    data = load(str(small_digits))
    same = data.y_train[:4]
    few = replace(data, x_train=data.x_train[:4], y_train=same, x_test=data.x_test[:4], y_test=same)
    with pytest.raises(DataError, match="too few to try"):
        run(digitnet_host, few, options(tmp_path / "a.bin", TRAINING, []), lambda _: None)


def test_a_clip_beside_auto_and_clips_that_are_no_norms_are_refused(
    digitnet_host: Compiled, small_digits: Path, run_cli: Cli
) -> None:
    for arguments, words in (
        (("--rate", "auto", "--clip", "0.3"), "finds the clip, too"),
        (("--rate", "auto", "--resume"), "goes on at its own rate"),
        (("--rate", "fast"), "'fast' is no number"),
        (("--clip", "-1"), "is no norm from"),
        (("--clip", "1e9"), "is no norm from"),
        (("--clip", "nan"), "is no norm from"),
    ):
        ended = run_cli("run", digitnet_host.folder, "--data", small_digits, *arguments)
        assert ended.code == 2
        assert words in ended.err


def test_the_device_refuses_a_clip_that_is_no_packed_norm(digitnet_host: Compiled, tmp_path: Path) -> None:
    with connect(digitnet_host, "host", tmp_path / "flash.bin") as session:
        for code in (0x0800, 0xFFFF):  # a zero that is shifted, bits beyond 32
            fields = bytearray(TRAINING.fields(0))
            fields[-4:-2] = code.to_bytes(2, "little")
            with pytest.raises(RefusedError):
                session.link.request(BEGIN, bytes(fields))
        session.begin(TRAINING)
