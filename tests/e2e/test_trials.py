# SPDX-License-Identifier: Apache-2.0
"""A rate found by trials on the target leaves no trace but the rate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Cli
from line import Line
from medyate import artefact
from medyate.datasets import load
from medyate.errors import DataError
from medyate.recipe import CLIP, RATE, over_horizon
from medyate.recipe import CLIPS as BOUNDS
from medyate.run.feed import Tick
from medyate.run.link import RefusedError
from medyate.run.log import HEAD_ONLY, Score
from medyate.run.session import BEGIN, Session, Training
from medyate.run.train import Compiled, RunOptions, connect, int8_samples, run
from medyate.run.trials import CLIPS, FIRST, FORWARD, RATES, Bench, Trial, _beyond, _choose, _is_lower

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
    rates = sorted({t["rate"] for t in trials})
    assert sorted((t["rate"], t["clip"]) for t in trials) == [(r, c) for r in rates for c in CLIPS[: 2 - head_only]]
    assert set(FIRST) <= set(rates) == set(RATES[RATES.index(rates[0]) : RATES.index(rates[-1]) + 1])
    assert [t["loss"] for t in trials] == sorted(t["loss"] for t in trials)
    best = trials[0]["rate"]
    assert best in rates[1:-1] or best in (RATES[0], RATES[-1])  # no edge wins while there is more beyond it
    total = training.epochs * training.epoch_samples
    assert (found["rate"], found["clip"]) in {(t["rate"], t["clip"]) for t in trials}  # each is as long as all of it
    assert trials[0]["loss"] < found["start_loss"]
    assert "finding a rate" in said[0] and "times the work of the training" in said[0]
    assert f"rate {found['rate']:.3g} and clip {found['clip']:g}" in said[1]
    counted = [t.done for t in ticks if t.phase == "trying rates"]
    assert counted[: len(trials)] == list(range(1, len(trials) + 1))
    assert found["head_only_steps"] == (None if head_only else total)
    assert (found["accuracy_head_only"] is None) == head_only
    given = replace(training, rate=found["rate"], clip=found["clip"])
    again = run(digitnet_host, data, options(tmp_path / "b.bin", given), lambda _: None)
    assert again["rate_trials"] == []
    own = ("rate_trials", "start_loss", "accuracy_head_only", "loss_head_only", "head_only_steps", "warnings")
    assert {key: again[key] for key in again if key not in own} == {key: found[key] for key in found if key not in own}


@pytest.mark.parametrize(("flips", "head_only", "batch"), [(True, False, 1), (False, False, 4), (False, True, 1)])
def test_the_work_that_is_said_beforehand_is_what_is_done(
    digitnet_host: Compiled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    flips: bool,
    head_only: bool,
    batch: int,
) -> None:
    """But for trials beyond the edges, which nobody knows beforehand."""
    digits = load("digits").first(200, 10)
    x, _ = int8_samples(digitnet_host, digits)
    training, done = Training(0.5, 3, 400, head_only=head_only), {"work": 0.0, "trainings": 0}
    train, infer, begin = Session.train, Session.infer, Session.begin

    def counted(how: Callable[..., Any]) -> Callable[..., Any]:
        def call(session: Session, *arguments: Any) -> Any:
            if how is begin:
                done["trainings"] += 1
            else:
                done["work"] += FORWARD if how is infer or session.position.settings.flags & 1 else 1.0
            return how(session, *arguments)

        return call

    for name, how in (("train", train), ("infer", infer), ("begin", begin)):
        monkeypatch.setattr(Session, name, counted(how))
    with connect(digitnet_host, "host", tmp_path / "flash.bin") as session:
        bench = Bench(session, training, x, digits.y_train, batch, True, lambda *_: None, flips)
        said = bench.work(head=not head_only)
        found = bench.find()
        if not head_only:
            bench.head_alone(lambda: Score(None, 0.0))
    first = len(FIRST) * (1 if head_only else len(CLIPS))
    beyond = len(found.trials) - first
    head = done["trainings"] - (1 + len(found.trials) + flips)  # the start, the trials, the mirrored one
    step = FORWARD if head_only else 1.0
    more = beyond * (step * 256 + FORWARD * 40)
    more += 0 if head_only else (head - (1 + len(FIRST) + 1)) * FORWARD * (256 + 40)
    assert found.best is not None
    assert (done["work"] - more) / (step * 1200) == pytest.approx(said)


@pytest.mark.parametrize(("steps", "total"), [(256, 256), (100, 50), (256, 1024), (256, 20400), (1, 2**31)])
def test_a_longer_training_has_a_lower_rate_and_steps_of_the_same_length(steps: int, total: int) -> None:
    rate, clip = over_horizon(0.1, 0.3, steps, total)
    assert rate == pytest.approx(0.1 * min(1.0, (steps / total) ** 0.5))
    assert rate * clip == pytest.approx(0.03) or clip == BOUNDS[1]


def test_the_loose_clip_is_taken_unless_the_tight_one_is_better_beyond_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 64)
    tight, loose, slow = Trial(0.3, CLIPS[0], 0.5), Trial(0.1, CLIPS[1], 0.55), Trial(0.01, CLIPS[1], 0.9)
    found = {tight: np.full(64, 0.5), loose: 0.55 + noise, slow: np.full(64, 0.9)}
    assert _choose(found) == loose
    assert _choose({**found, loose: np.full(64, 0.55)}) == tight
    assert _choose({tight: found[tight]}) == tight


def test_the_head_alone_is_what_a_run_of_it_gives(digitnet_host: Compiled, small_digits: Path, tmp_path: Path) -> None:
    data = load(str(small_digits))
    training = replace(TRAINING, epochs=1)
    found = run(digitnet_host, data, options(tmp_path / "a.bin", training, []), lambda _: None)
    alone = replace(training, head_only=True)
    same = run(digitnet_host, data, options(tmp_path / "b.bin", alone, []), lambda _: None)
    assert found["accuracy_head_only"] == same["accuracy_after"]
    assert found["loss_head_only"] == same["loss_after"]


def test_where_nothing_is_learned_the_defaults_are_used_and_said(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    data, said = load(str(small_digits)), list[str]()
    shuffled = np.random.default_rng(5).permutation(data.y_train)
    wrong = replace(data, y_train=shuffled)
    found = run(digitnet_host, wrong, options(tmp_path / "a.bin", TRAINING, said), lambda _: None)
    assert (found["rate"], found["clip"]) == (RATE, CLIP)
    assert "are the defaults: none of" in said[1] and "lowered the loss" in said[1]


def test_the_next_rate_is_tried_where_an_edge_wins() -> None:
    assert _beyond({0.01, 0.03}, 0.03) == (0.1,)
    assert _beyond({0.01, 0.03}, 0.01) == (0.003,)
    assert _beyond({0.01, 0.03, 0.1}, 0.03) == ()
    assert _beyond({0.3, 1.0}, 1.0) == () == _beyond({0.0003, 0.001}, 0.0003)


def test_a_fall_within_noise_is_none() -> None:
    start = np.full(16, 2.0)
    assert _is_lower(start - 0.1, start)
    assert not _is_lower(start, start)
    assert not _is_lower(start - np.tile([1.0, -0.9], 8), start)


def test_a_target_that_restarts_makes_its_trial_again(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    data, image = load(str(small_digits)), digitnet_host.image
    quiet = run(digitnet_host, data, options(tmp_path / "a.bin", TRAINING, []), lambda _: None)
    with Line(image, tmp_path / "b.bin", restarts=(50_000,)) as line:
        asked = replace(options(tmp_path / "b.bin", TRAINING, []), on=line.port)
        found = run(digitnet_host, data, asked, lambda _: None)
        assert line.restarted == 1
    assert found["rate_trials"] == quiet["rate_trials"]
    assert found["accuracy_after"] == quiet["accuracy_after"]


def test_a_resumed_training_goes_on_at_its_own_rate(
    digitnet_host: Compiled, small_digits: Path, run_cli: Cli, tmp_path: Path
) -> None:
    def go(name: str, *more: str) -> dict[str, Any]:
        files = ("--flash", tmp_path / f"{name}.bin", "--log", tmp_path / f"{name}.json")
        given = ("--data", small_digits, "--epochs", 2, "--limit", 40, "--no-measure", "--json")
        ended = run_cli("run", digitnet_host.folder, *given, *files, *more)
        assert ended.code == 0, ended.err
        return dict(json.loads(ended.out))

    whole = go("a")
    again = go("a", "--fresh")  # what the trials measured is no run of the head alone, and is measured again
    assert again["accuracy_head_only"] == whole["accuracy_head_only"] and again["head_only_steps"] == 80
    assert go("c", "--head-only")["accuracy_after"] == go("c", "--fresh")["accuracy_head_only"]
    stopped = load(str(small_digits))

    def stop(tick: Tick) -> None:
        if tick.epoch == 2:
            raise KeyboardInterrupt

    flash = tmp_path / "b.bin"
    training = Training(whole["rate"], 2, 40, clip=whole["clip"], shift=whole["shift"], smoothing=whole["smoothing"])
    with pytest.raises(KeyboardInterrupt):
        run(digitnet_host, stopped, replace(options(flash, training), limit=40), stop)
    resumed = go("b", "--resume")
    assert resumed["rate"] == pytest.approx(whole["rate"], rel=1e-4) and resumed["rate_trials"] == []
    assert resumed["accuracy_after"] == whole["accuracy_after"]


def test_what_the_head_alone_reached_outlives_a_kill(
    digitnet_host: Compiled, small_digits: Path, run_cli: Cli, tmp_path: Path
) -> None:
    log, flash = tmp_path / "log.json", tmp_path / "flash.bin"

    def stop(tick: Tick) -> None:
        if tick.epoch == 2:
            raise KeyboardInterrupt

    asked = replace(options(flash, replace(TRAINING, flip=False), []), keep=partial(artefact.write_json, log))
    with pytest.raises(KeyboardInterrupt):
        run(digitnet_host, load(str(small_digits)), asked, stop)
    cut = json.loads(log.read_text())
    assert cut["head_only_steps"] == 80 and cut["accuracy_head_only"] > 0
    given = ("--data", small_digits, "--epochs", 2, "--limit", 40, "--seed", 7, "--no-measure")
    ended = run_cli("run", digitnet_host.folder, *given, "--flash", flash, "--log", log, "--resume")
    assert ended.code == 0, ended.err
    assert f"the head alone: accuracy {cut['accuracy_head_only']:.4f} after 80 steps" in ended.out
    whole = json.loads(log.read_text())
    assert whole["finished"] and {key: whole[key] for key in HEAD_ONLY} == {key: cut[key] for key in HEAD_ONLY}
    log.write_text(json.dumps({**cut, "accuracy_head_only": "high"}))
    ended = run_cli("run", digitnet_host.folder, *given, "--flash", flash, "--log", log, "--resume")
    assert ended.code == 2 and "is no run log of this version" in ended.err


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


def test_too_few_samples_to_try_on_are_said(digitnet_host: Compiled, small_digits: Path, tmp_path: Path) -> None:
    data, said = load(str(small_digits)), list[str]()
    same = data.y_train[:4]
    few = replace(data, x_train=data.x_train[:4], y_train=same, x_test=data.x_test[:4], y_test=same)
    found = run(
        digitnet_host, few, options(tmp_path / "a.bin", replace(TRAINING, epoch_samples=4), said), lambda _: None
    )
    assert (found["rate"], found["clip"], found["rate_trials"]) == (RATE, CLIP, [])
    assert "too few samples" in said[1]


def test_a_clip_beside_auto_and_clips_that_are_no_norms_are_refused(
    digitnet_host: Compiled, small_digits: Path, run_cli: Cli
) -> None:
    for arguments, words in (
        (("--rate", "auto", "--clip", "0.3"), "finds the clip, too"),
        (("--clip", "0.3"), "finds the clip, too"),
        (("--rate", "fast"), "'fast' is no number"),
        (("--rate", "0.01", "--clip", "-1"), "is no norm from"),
        (("--rate", "0.01", "--clip", "1e9"), "is no norm from"),
        (("--rate", "0.01", "--clip", "nan"), "is no norm from"),
    ):
        ended = run_cli("run", digitnet_host.folder, "--data", small_digits, *arguments)
        assert ended.code == 2
        assert words in ended.err


def test_the_device_refuses_a_clip_that_is_no_packed_norm(digitnet_host: Compiled, tmp_path: Path) -> None:
    with connect(digitnet_host, "host", tmp_path / "flash.bin") as session:
        for code in (0x0800, 0xFFFF):  # a zero that is shifted, bits beyond 32
            fields = bytearray(TRAINING.fields(0))
            fields[-6:-4] = code.to_bytes(2, "little")
            with pytest.raises(RefusedError):
                session.link.request(BEGIN, bytes(fields))
        session.begin(TRAINING)


@pytest.mark.parametrize("symmetric", [True, False])
def test_flips_are_used_where_mirrored_samples_are_known_as_well(
    digitnet_host: Compiled, tmp_path: Path, *, symmetric: bool
) -> None:
    """Zeros, eights and their halves: upper against lower ones survive a flip, left against right ones do not."""
    digits, said = load("digits"), list[str]()
    round_ones = digits.x_train[np.isin(digits.y_train, (0, 8))][:250].copy()
    labels = np.arange(len(round_ones)) % 2
    for image, label in zip(round_ones, labels, strict=True):
        half = image[8:] if symmetric else image[:, 8:]
        other = image[:8] if symmetric else image[:, :8]
        (half if label else other)[...] = 0
    parts = (round_ones[:200], labels[:200], round_ones[200:], labels[200:])
    data = replace(digits, x_train=parts[0], y_train=parts[1], x_test=parts[2], y_test=parts[3])
    asked = replace(options(tmp_path / "a.bin", Training(0.5, 4, 100), said), find_flip=True, evaluate_each=False)
    found = run(digitnet_host, data, asked, lambda _: None)
    assert found["flip"] == symmetric
    assert f"{'random' if symmetric else 'no'} flips: " in said[1]
    assert found["accuracy_after"] > 0.9
