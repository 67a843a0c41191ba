# SPDX-License-Identifier: Apache-2.0
"""What was learned, and what lies beside it, outlives new runs, new compiles, Ctrl-C and kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_export_link import wired
from test_start import data_of, rewritten, starts

from conftest import Cli
from medyate.run import held
from medyate.run.train import Compiled

OPTIONS = ("--epochs", 3, "--rate", 0.3, "--limit", 8, "--no-measure", "--evaluate-at-end")


@pytest.fixture
def trained(tiny_host: Compiled, run_cli: Cli, tmp_path: Path) -> Compiled:
    """The tiny network in a folder of its own, after three epochs."""
    shutil.copytree(tiny_host.folder, tmp_path / "out")
    shutil.copy(data_of(tiny_host), tmp_path)
    compiled = Compiled.read(tmp_path / "out")
    assert run_cli("run", compiled.folder, "--data", data_of(compiled), *OPTIONS).code == 0
    return compiled


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_trained_flash_is_discarded_only_on_demand(trained: Compiled, run_cli: Cli) -> None:
    before = snapshot(trained.folder)
    given = ("run", trained.folder, "--data", data_of(trained), *OPTIONS)
    ended = run_cli(*given)
    assert ended.code == 2
    assert "holds generation 3 of this model, trained for 3 epochs" in ended.err
    assert "--resume" in ended.err and "--fresh" in ended.err
    assert run_cli(*given, "--resume", "--fresh").code == 2
    assert run_cli(*given, "--fresh", "--on", "qemu").code == 2  # refused before it discards
    assert snapshot(trained.folder) == before
    ended = run_cli(*given, "--fresh")
    assert ended.code == 0, ended.err
    assert snapshot(trained.folder) == before  # the same training again


def test_a_board_is_asked_before_its_flash_is_discarded(trained: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    flash = trained.folder / "flash.bin"
    before = flash.read_bytes()
    given = ("run", trained.folder, "--data", data_of(trained), *OPTIONS, "--log", tmp_path / "log.json")
    with pytest.raises(AssertionError), wired(trained, flash) as port:  # the program ends with its line, not with EXIT
        ended = run_cli(*given, "--on", port)
        assert ended.code == 2 and "target's flash holds generation 3 of this model" in ended.err, ended.err
        raise AssertionError
    assert flash.read_bytes() == before
    with wired(trained, flash) as port:
        ended = run_cli(*given, "--on", port, "--fresh")
    assert ended.code == 0, ended.err
    assert flash.read_bytes() != before


@pytest.mark.parametrize("fresh", [(), ("--fresh",), ("--resume",)])
def test_files_of_others_are_not_taken_for_flash_or_log(
    tiny_host: Compiled, run_cli: Cli, tmp_path: Path, fresh: tuple[str, ...]
) -> None:
    photo, notes = tmp_path / "photo.jpg", tmp_path / "notes.json"
    photo.write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000))
    notes.write_text('{"history": "mine"}')
    given = ("run", tiny_host.folder, "--data", data_of(tiny_host), *OPTIONS, *fresh)
    for files, word in (
        (("--flash", photo, "--log", tmp_path / "log.json"), "is no flash file"),
        (("--flash", tmp_path, "--log", tmp_path / "log.json"), "cannot be a flash file"),
        (("--flash", tmp_path / "f.bin", "--log", notes), "is no run log"),
    ):
        ended = run_cli(*given, *files)
        assert ended.code == 2 and word in ended.err, ended.err
    assert photo.stat().st_size == 5004 and notes.read_text() == '{"history": "mine"}'


def test_commands_after_another_network_was_compiled_say_so(
    trained: Compiled, digitnet_host: Compiled, small_digits: Path, run_cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "other"
    shutil.copytree(digitnet_host.folder, out, ignore=shutil.ignore_patterns("flash.bin", "run.json"))
    for name in ("flash.bin", "run.json"):  # as a compile into that folder leaves them
        shutil.copy(trained.folder / name, out)
    before = snapshot(out)
    digest = f"0x{trained.model['digest']:08x}"
    log = ("--log", tmp_path / "log.json")
    run = ("run", out, "--data", small_digits, "--rate", 0.01, "--epochs", 1)
    for command, words in (
        (("report", out), "log of another model"),
        (("export", out, "-o", tmp_path / "a.onnx"), "log of another model"),
        ((*run, "--resume"), "log of another model"),
        ((*run, "--resume", *log), "the flash is another model's: it holds generation 3"),
        ((*run, *log), "holds generation 3 of another model"),
    ):
        ended = run_cli(*command)
        assert ended.code == 2, command
        assert words in ended.err and digest in ended.err, ended.err
    assert snapshot(out) == before
    assert run_cli(*run, "--fresh", "--no-measure", "--limit", 20).code == 0
    (out / "flash.bin").write_bytes((trained.folder / "flash.bin").read_bytes())
    for more in ((), ("--on", "host")):
        ended = run_cli("export", out, "-o", tmp_path / "a.onnx", *more)
        assert ended.code == 2 and "the flash is another model's" in ended.err and digest in ended.err, ended.err


def test_generations_of_another_model_in_banks_of_the_same_size(trained: Compiled, run_cli: Cli) -> None:
    flash = trained.folder / "flash.bin"
    image = bytearray(flash.read_bytes())
    for start in starts(trained):
        rewritten(image, start, 3, 0x1234ABCD)
    flash.write_bytes(image)
    for command in (
        ("export", trained.folder, "-o", trained.folder / "a.onnx"),
        ("run", trained.folder, "--data", data_of(trained), *OPTIONS),
        ("run", trained.folder, "--data", data_of(trained), *OPTIONS, "--resume"),
    ):
        ended = run_cli(*command)
        assert ended.code == 2 and "digest 0x1234abcd" in ended.err, ended.err
    assert flash.read_bytes() == image


def test_logs_that_were_tampered_with_are_refused(trained: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    path = trained.folder / "run.json"
    whole = json.loads(path.read_text())
    entry = whole["history"][0]
    for change in (
        {"history": [1]},
        {"history": [{**entry, "epoch": "1"}]},
        {"history": [{**entry, "selected": [10**9]}]},
        {"history": [{**entry, "accuracy": "high"}]},
        {"accuracy_before": "0"},
        {"rate": -1},
        {"model_digest": None},
        {"schedule": "step"},
    ):
        path.write_text(json.dumps({**whole, **change}))
        ended = run_cli("report", trained.folder, "-o", tmp_path / "a.png")
        assert ended.code == 2, change


def test_every_header_counts_wherever_it_lies(trained: Compiled) -> None:
    image, digest = (trained.folder / "flash.bin").read_bytes(), int(trained.model["digest"])
    found = held.find(b"MDYB" + bytes(7) + image + image[:60])
    assert [(one.generation, one.epochs, one.model) for one in found] == [(3, 3, digest), (2, 2, digest)]
    newest = held.newest(found, digest)
    assert newest is not None and newest.generation == 3
    wrapped = [held.Held(number, 1, digest, found[0].format) for number in (2**32 - 1, 0, 2**32 - 2)]
    newest = held.newest(wrapped, digest)
    assert newest is not None and newest.generation == 0
    assert held.strangers(found, digest) == ""
    assert held.find(image[:40]) == ()


def command(compiled: Compiled, *more: object) -> list[str]:
    target = "qemu" if compiled.model["target"] != "host" else "host"
    epochs = 40 if target == "host" else 6
    given = ("run", compiled.folder, "--data", data_of(compiled), "--on", target, "--epochs", epochs, "--no-measure")
    return [sys.executable, "-m", "medyate.cli", *map(str, (*given, "--rate", 0.3, "--limit", 16, *more))]


def history(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def stopped(compiled: Compiled, folder: Path, how: signal.Signals) -> tuple[int, str]:
    """Starts a run and stops it by a signal after its second epoch: (exit code, what it said)."""
    log = folder / "log.json"
    arguments = command(compiled, "--flash", folder / "f.bin", "--log", log)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
        while not log.exists() or history(log)["committed_epochs"] < 2:
            assert program.poll() is None
            time.sleep(0.002)
        os.killpg(program.pid, how)  # as a terminal does with Ctrl-C
        _, said = program.communicate(timeout=60)
        return program.returncode, said


@pytest.mark.parametrize("target", ["host", "m7"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_goes_on_from_its_last_epoch(
    tiny_host: Compiled, tiny_m7: Compiled, tmp_path: Path, how: signal.Signals, target: str
) -> None:
    compiled = tiny_host if target == "host" else tiny_m7
    files = ("--flash", tmp_path / "whole.bin", "--log", tmp_path / "whole.json")
    assert subprocess.run(command(compiled, *files), check=False, capture_output=True).returncode == 0
    whole = history(tmp_path / "whole.json")
    code, said = stopped(compiled, tmp_path, how)
    cut = history(tmp_path / "log.json")
    done = cut["committed_epochs"]
    assert not cut["finished"] and 2 <= done < whole["planned_epochs"]
    assert cut["history"][:done] == whole["history"][:done]
    if how == signal.SIGINT:
        assert code == 130
        assert f"stopped after epoch {done} of {whole['planned_epochs']}" in said and "--resume" in said
        assert "Traceback" not in said
    files = ("--flash", tmp_path / "f.bin", "--log", tmp_path / "log.json")
    there = held.newest(held.find((tmp_path / "f.bin").read_bytes()), int(compiled.model["digest"]))
    assert there is not None and there.epochs in (done, done + 1)  # a commit may have ended that the log does not know
    refused = subprocess.run(command(compiled, *files), check=False, capture_output=True, text=True)
    assert refused.returncode == 2 and f"trained for {there.epochs}" in refused.stderr, refused.stderr
    ended = subprocess.run(command(compiled, *files, "--resume"), check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    rest = history(tmp_path / "log.json")
    assert rest["finished"]
    for key in ("history", "accuracy_before", "accuracy_after", "loss_after", "logit_range"):
        assert rest[key] == whole[key], key
    assert rest["digest"].split("-")[2:] == whole["digest"].split("-")[2:]  # deltas, state, flash
