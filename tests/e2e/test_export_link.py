# SPDX-License-Identifier: Apache-2.0
"""What a live target tells of its newest generation is what lies in its flash, over a pipe and over a serial port."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import DIGITNET, Cli
from medyate import artefact, datasets
from medyate.errors import ArtefactError
from medyate.export.trained import read_compiled
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES
from medyate.plan.budget import Limits
from medyate.run.generation import newest, read_bank
from medyate.run.session import BANK, Training
from medyate.run.train import Compiled, RunOptions, connect, run
from medyate.stages import Options, compile_model
from shared_files import Samples
from tiny import compile_tiny

TRAINING = Training(0.02, 2, 20, seed=4)


@pytest.fixture(scope="module")
def trained(digitnet_host: Compiled, small_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """digitnet after two epochs: both banks are in use."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    shutil.copytree(digitnet_host.folder, folder)
    compiled = Compiled.read(folder)
    options = RunOptions("host", TRAINING, folder / "flash.bin", evaluate_each=False, measure=False)
    log = run(compiled, datasets.load(str(small_digits)), options, lambda _: None)
    artefact.write_json(folder / "run.json", log)
    return compiled


@contextmanager
def wired(compiled: Compiled, flash: Path) -> Iterator[str]:
    """The host twin at the other end of a terminal line; yields the option's value."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    environment = {**os.environ, "MDY_FLASH_FILE": str(flash)}
    with subprocess.Popen([compiled.image], stdin=ours, stdout=ours, env=environment) as program:
        try:
            yield f"serial:{os.ttyname(theirs)}"
            assert program.wait(10) == 0
        finally:
            program.kill()
            os.close(ours)
            os.close(theirs)


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_a_live_target_gives_the_file_that_its_flash_gives(
    suffix: str, trained: Compiled, run_cli: Cli, tmp_path: Path
) -> None:
    flash = trained.folder / "flash.bin"
    before = flash.read_bytes()
    files = [tmp_path / f"{name}.{suffix}" for name in ("image", "pipe", "line")]
    assert run_cli("export", trained.folder, "-o", files[0]).code == 0
    assert run_cli("export", trained.folder, "-o", files[1], "--on", "host").code == 0
    with wired(trained, flash) as port:
        ended = run_cli("export", trained.folder, "-o", files[2], "--on", port, "--flash", tmp_path / "none")
    assert ended.code == 0, ended.err
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()
    assert flash.read_bytes() == before


def test_an_emulated_board_gives_the_file_that_its_flash_gives(trained: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = Options("qemu-m4", Limits(64 << 10), rank_epochs=1, builder="make")
    compile_model(DIGITNET, datasets.load("digits"), options, out)
    assert Compiled.read(out).model["digest"] == trained.model["digest"]
    for name in ("flash.bin", "run.json"):
        shutil.copy(trained.folder / name, out)
    assert run_cli("export", out, "-o", tmp_path / "image.onnx").code == 0
    assert run_cli("export", out, "-o", tmp_path / "link.onnx", "--on", "qemu").code == 0
    assert (tmp_path / "image.onnx").read_bytes() == (tmp_path / "link.onnx").read_bytes()


def test_the_bank_over_the_link_is_the_bank_in_flash_whatever_was_trained_since(
    trained: Compiled, samples: Samples, tmp_path: Path
) -> None:
    flash = shutil.copy(trained.folder / "flash.bin", tmp_path)
    facts = read_compiled(trained)[2]
    image = Path(flash).read_bytes()
    bytes_of_one = BANK_HEADER_BYTES + BANK_BODY_BYTES + facts.state.saved_bytes + facts.weight_bytes
    number = newest(facts, image).number
    with connect(trained, "host", Path(flash)) as session:
        banks = {image[at : at + bytes_of_one] for at in (bank.address for bank in facts.banks)}
        first = session.newest_bank()
        assert first in banks
        session.train(samples.x[0], int(samples.y[0]))
        assert session.read(BANK) == first
        session.commit()
        second = session.read(BANK)
    found = [read_bank(facts, bank) for bank in (first, second)]
    assert [generation.number for generation in found if generation] == [number, number + 1]
    assert second in {Path(flash).read_bytes()[at : at + bytes_of_one] for at in (bank.address for bank in facts.banks)}


def test_a_bank_that_arrives_damaged_is_no_generation(trained: Compiled, tmp_path: Path) -> None:
    facts = read_compiled(trained)[2]
    with connect(trained, "host", trained.folder / "flash.bin") as session:
        bank = session.newest_bank()
    assert read_bank(facts, bank) is not None
    for place in (0, 8, BANK_HEADER_BYTES - 1, BANK_HEADER_BYTES, len(bank) - 1):
        damaged = bank[:place] + bytes([bank[place] ^ 1]) + bank[place + 1 :]
        assert read_bank(facts, damaged) is None
    assert read_bank(facts, bank[:-1]) is None
    with pytest.raises(ArtefactError, match="another model"):
        read_bank(replace(facts, digest=facts.digest ^ 1), bank)


def test_a_target_that_has_learned_nothing_yet_is_refused(trained: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty.bin"
    ended = run_cli("export", trained.folder, "-o", tmp_path / "a.onnx", "--on", "host", "--flash", empty)
    assert ended.code == 2 and "cannot be read" in ended.err
    assert not empty.exists()
    with wired(trained, empty) as port:
        ended = run_cli("export", trained.folder, "-o", tmp_path / "a.onnx", "--on", port)
    assert ended.code == 2 and "holds no usable generation" in ended.err
    assert not (tmp_path / "a.onnx").exists()


def test_what_an_older_image_learned_is_read_through_a_newer_one(
    tiny_host: Compiled, tmp_path: Path, run_cli: Cli
) -> None:
    """The newer image refuses to go on from it, and keeps it: the folder of the older one says what it means."""
    newer = compile_tiny(tmp_path, batch=2)
    assert newer.model["digest"] != tiny_host.model["digest"]
    data_ = tiny_host.folder.parent / "data.npz"
    flash, log = tmp_path / "flash.bin", tmp_path / "run.json"
    given = ("run", tiny_host.folder, "--data", data_, "--rate", 0.01, "--epochs", 2, "--limit", 8, "--no-measure")
    assert run_cli(*given, "--flash", flash, "--log", log).code == 0
    before = flash.read_bytes()
    files = [tmp_path / name for name in ("image.onnx", "line.onnx")]
    assert run_cli("export", tiny_host.folder, "-o", files[0], "--flash", flash, "--log", log).code == 0
    with wired(newer, flash) as port:
        ended = run_cli("export", tiny_host.folder, "-o", files[1], "--on", port, "--log", log)
    assert ended.code == 0, ended.err
    assert files[0].read_bytes() == files[1].read_bytes()
    assert flash.read_bytes() == before
    with wired(newer, tmp_path / "empty.bin") as port:
        ended = run_cli("export", tiny_host.folder, "-o", files[1], "--on", port, "--log", log)
    assert ended.code == 2 and "no usable generation" in ended.err


def test_a_target_that_cannot_be_asked_is_refused(trained: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    for on, why in (("serial:/nowhere", "cannot be opened"), ("qemu", "cannot run on 'qemu'"), ("moon", "'moon'")):
        ended = run_cli("export", trained.folder, "-o", tmp_path / "a.onnx", "--on", on)
        assert ended.code == 2 and why in ended.err, ended.err
