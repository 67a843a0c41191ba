# SPDX-License-Identifier: Apache-2.0
"""A resumed run says what it found in flash, and how worn that is."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli, Ended
from medyate.datasets import load
from medyate.export.trained import read_compiled
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES
from medyate.run.feed import Tick
from medyate.run.generation import newest
from medyate.run.session import BANK_STATES, Found, Position, Settings, Training
from medyate.run.train import Compiled, RunOptions, run
from tiny import FLASH

EPOCHS = 4
OPTIONS = ("--epochs", EPOCHS, "--rate", 0.3, "--limit", 8, "--no-measure", "--evaluate-at-end")


class StoppedError(Exception):
    """Stands for the power button."""


@pytest.fixture(scope="module")
def stopped(tiny_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The flash of a training that was stopped in its last epoch: generation 3 in bank 0, generation 2 in bank 1."""
    flash = tmp_path_factory.mktemp("stopped") / "flash.bin"

    def progress(tick: Tick) -> None:
        if tick.epoch == EPOCHS:
            raise StoppedError

    training = Training(0.3, EPOCHS, 8)
    with pytest.raises(StoppedError):
        run(tiny_host, load(data_of(tiny_host)), RunOptions("host", training, flash, measure=False), progress)
    return flash.read_bytes()


def data_of(compiled: Compiled) -> str:
    return str(compiled.folder.parent / "data.npz")


def starts(compiled: Compiled) -> list[int]:
    """Addresses of the banks."""
    return [bank.address for bank in read_compiled(compiled)[2].banks]


Resume = Callable[[bytearray], Ended]


@pytest.fixture
def resume(tiny_host: Compiled, run_cli: Cli, tmp_path: Path) -> Resume:
    """`medyate run --resume` on a flash."""

    def call(flash: bytearray) -> Ended:
        (tmp_path / "flash.bin").write_bytes(flash)
        files = ("--flash", tmp_path / "flash.bin", "--log", tmp_path / "run.json")
        return run_cli("run", tiny_host.folder, "--data", data_of(tiny_host), "--resume", *OPTIONS, *files)

    return call


def log(tmp_path: Path) -> dict[str, object]:
    return dict(json.loads((tmp_path / "run.json").read_text())["flash"])


def test_a_whole_flash(stopped: bytes, resume: Resume, tmp_path: Path) -> None:
    ended = resume(bytearray(stopped))
    assert ended.code == 0, ended.err
    assert "medyate: generation 3 of bank 0 is used." in ended.err
    assert "flash: bank 0 erased 2 times, bank 1 2; at most 2 erases of one sector" in ended.out
    assert log(tmp_path) == {
        "start": "generation 3 of bank 0 is used",
        "banks_at_start": ["usable", "usable"],
        "bank_erases": [2, 2],
        "sector_erases": [2, 2, 2, 2, 2, 0],
    }


def test_a_damaged_bank(tiny_host: Compiled, stopped: bytes, resume: Resume, tmp_path: Path) -> None:
    flash = bytearray(stopped)
    flash[starts(tiny_host)[0] + BANK_HEADER_BYTES + 30] ^= 4
    ended = resume(flash)
    assert ended.code == 0, ended.err
    assert "medyate: bank 0 was damaged; generation 2 of bank 1 is used." in ended.err
    assert log(tmp_path)["banks_at_start"] == ["damaged", "usable"]
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 2


def test_both_damaged(tiny_host: Compiled, stopped: bytes, resume: Resume, tmp_path: Path) -> None:
    flash = bytearray(stopped)
    for start in starts(tiny_host):
        flash[start + 9] ^= 1
    ended = resume(flash)
    assert ended.code == 0, ended.err
    assert "medyate: both banks were damaged; training starts from the factory weights." in ended.err
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == EPOCHS


def test_an_image_without_counts_is_taken(stopped: bytes, resume: Resume, tmp_path: Path) -> None:
    ended = resume(bytearray(stopped[: -4 * FLASH.sectors]))
    assert ended.code == 0, ended.err
    assert log(tmp_path)["sector_erases"] == [0, 0, 1, 1, 1, 0]  # of the one commit since
    assert log(tmp_path)["bank_erases"] == [2, 2]  # headers remember


def test_a_reset_and_a_wipe(tiny_host: Compiled, stopped: bytes, resume: Resume, run_cli: Cli, tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    flash.write_bytes(stopped)
    assert run_cli("reset", tiny_host.folder, "--flash", flash).code == 0
    assert flash.read_bytes()[:512] != stopped[:512]
    left = flash.read_bytes()
    ended = resume(bytearray(left))
    assert ended.code == 0 and "training starts from the factory weights" in ended.err, ended.err
    flash.write_bytes(left)
    ended = run_cli("reset", tiny_host.folder, "--flash", flash, "--wipe", "--json")
    assert ended.code == 0 and json.loads(ended.out) == {"flash": "wiped"}
    assert set(flash.read_bytes()[: FLASH.size]) == {0xFF}
    ended = run_cli("reset", tiny_host.folder, "--flash", tmp_path / "none.bin")
    assert ended.code == 2 and "nothing was learned" in ended.err
    assert not (tmp_path / "none.bin").exists()


def test_on_a_cortex_m7(tiny_m7: Compiled, stopped: bytes, run_cli: Cli, tmp_path: Path) -> None:
    """The host's flash, carried on by QEMU."""
    (tmp_path / "flash.bin").write_bytes(stopped)
    files = ("--flash", tmp_path / "flash.bin", "--log", tmp_path / "run.json")
    ended = run_cli("run", tiny_m7.folder, "--data", data_of(tiny_m7), "--on", "qemu", "--resume", *OPTIONS, *files)
    assert ended.code == 0, ended.err
    assert "medyate: generation 3 of bank 0 is used." in ended.err
    assert log(tmp_path)["sector_erases"] == [2, 2, 2, 2, 2, 0]


def rewritten(flash: bytearray, start: int, word: int, value: int) -> None:
    """Another number in a header, and a checksum that fits."""
    struct.pack_into("<I", flash, start + 4 * word, value)
    struct.pack_into("<I", flash, start + 60, zlib.crc32(flash[start : start + 60]))


def test_generations_of_another_model_or_format(tiny_host: Compiled, stopped: bytes, resume: Resume) -> None:
    flash = bytearray(stopped)
    first, second = starts(tiny_host)
    rewritten(flash, first, 3, 0x1234ABCD)
    ended = resume(flash)  # the older one is this model's
    stranger = "bank 0 holds generation 3 of another model (digest 0x1234abcd)"
    assert ended.code == 0 and f"medyate: {stranger}; generation 2 of bank 1 is used." in ended.err, ended.err
    rewritten(flash, second, 1, 1)
    ended = resume(flash)
    assert ended.code == 2
    assert f"{stranger} and bank 1 holds generation 2 in format 1 of the banks" in ended.err
    assert f"the image is 0x{tiny_host.model['digest']:08x}" in ended.err


@pytest.mark.parametrize(
    ("states", "bank", "sentence"),
    [
        ("00", 1, "the flash holds no generation; training starts from the factory weights"),
        ("01", 1, "generation 8 of bank 1 is used"),
        ("11", 0, "generation 7 of bank 0 is used"),
        ("21", 1, "the commit to bank 0 was not finished; generation 8 of bank 1 is used"),
        ("30", 1, "bank 0 was damaged; training starts from the factory weights"),
        (
            "32",
            0,
            "bank 0 was damaged; the commit to bank 1 was not finished; training starts from the factory weights",
        ),
        ("33", 1, "both banks were damaged; training starts from the factory weights"),
    ],
)
def test_sentences(states: str, bank: int, sentence: str) -> None:
    first, second = (Found(BANK_STATES[int(s)], 7 + i, 0, 0) for i, s in enumerate(states))
    assert Position(7 + bank, 0, 0, 0, Settings(0, 0, 0, 0, 0, 0, 0, 0), bank, (first, second)).start() == sentence


def in_format_4(compiled: Compiled, flash: bytes) -> bytearray:
    """The same generations as a runtime of format 4 wrote them: settings in the header, banks for that size."""
    facts = read_compiled(compiled)[2]
    image = bytearray(b"\xff" * FLASH.size)
    for old, new in zip(facts.places[:2], facts.banks, strict=True):
        words = list(struct.unpack_from("<16I", flash, new.address))
        body = new.address + BANK_HEADER_BYTES
        payload = flash[body + BANK_BODY_BYTES : body + words[4]]
        steps, seed, mult, exponent, cosine, warmup, total, clip, flags, *_ = struct.unpack_from("<11I", flash, body)
        words[1], words[4:6] = 4, [len(payload), zlib.crc32(payload)]
        words[7:10] = steps, seed, mult | (exponent + 2**15) % 2**16 << 16
        words[10:13] = warmup, total, flags | cosine << 2 | clip << 16
        header = struct.pack("<15I", *words[:15])
        content = header + struct.pack("<I", zlib.crc32(header)) + payload
        image[old.address : old.address + len(content)] = content
    return image


def test_a_generation_of_the_format_before_is_exported_and_not_discarded_in_silence(
    tiny_host: Compiled, stopped: bytes, resume: Resume, run_cli: Cli, tmp_path: Path
) -> None:
    older = in_format_4(tiny_host, stopped)
    facts = read_compiled(tiny_host)[2]
    one, two = newest(facts, bytes(older)), newest(facts, stopped)
    assert (one.number, one.epochs) == (two.number, two.epochs) == (3, 3)
    np.testing.assert_equal(dict(one.weights), dict(two.weights))
    np.testing.assert_equal((one.head_weight, one.head_bias), (two.head_weight, two.head_bias))
    assert resume(bytearray(stopped)).code == 0
    log_file = shutil.copy(tmp_path / "run.json", tmp_path / "log.json")
    ended = resume(older)
    assert ended.code == 2
    assert "in format 4 of the banks" in ended.err
    flash = tmp_path / "flash.bin"
    export = ("export", tiny_host.folder, "--log", log_file)
    files = [tmp_path / f"{name}.onnx" for name in ("file", "link", "new")]
    assert run_cli(*export, "-o", files[0], "--flash", flash).code == 0
    assert run_cli(*export, "-o", files[1], "--flash", flash, "--on", "host").code == 0
    (tmp_path / "new.bin").write_bytes(stopped)
    assert run_cli(*export, "-o", files[2], "--flash", tmp_path / "new.bin").code == 0
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()
    where = ("--flash", flash, "--log", tmp_path / "other.json")
    refused = run_cli("run", tiny_host.folder, "--data", data_of(tiny_host), *OPTIONS, *where)
    assert refused.code == 2
    assert "medyate export" in refused.err
    assert flash.read_bytes()[: FLASH.size] == bytes(older)
