# SPDX-License-Identifier: Apache-2.0
"""Whom the link lets do what: nothing that is guarded without the key; a recording of a request is worthless."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_link_line import replies

import clibrary
from conftest import DIGITNET, Cli
from frames import frame
from medyate.build.project import _key_source
from medyate.errors import LinkError
from medyate.run.link import PROTOCOL, Link, encode
from medyate.run.session import (
    BANK,
    BEGIN,
    CHALLENGE,
    EXIT,
    FORCE,
    HELLO,
    READ,
    RESET,
    ROLL_BACK,
    STATE,
    WEIGHTS,
    Session,
    Training,
)
from medyate.run.train import Compiled
from medyate.run.transport import HostProgram
from shared_files import Samples

KEY = bytes(range(32))
TRAINING = Training(0.02, 1, 4, "constant", seed=4)
GUARDED = [
    (EXIT, b""),
    (FORCE, bytes(2)),
    (ROLL_BACK, b""),
    (RESET, b""),
    (READ, b""),
    *((READ, bytes([kind]) + bytes(4) + b"\x20") for kind in (STATE, WEIGHTS, BANK)),
]


@pytest.fixture(scope="module")
def sha256(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return clibrary.load("sha256_probe.c", tmp_path_factory.mktemp("sha256"), ["src/sha256.c"])


def digest(sha256: ctypes.CDLL, data: bytes, first: int = 0) -> bytes:
    out = ctypes.create_string_buffer(32)
    sha256.sha256_probe(data, len(data), first, out)
    return out.raw


def test_sha256_of_the_standards_examples(sha256: ctypes.CDLL) -> None:
    """FIPS 180-4's examples, and a million times a."""
    long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
    assert digest(sha256, b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(sha256, long).hex() == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    assert digest(sha256, b"a" * 10**6, 77).hex() == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_sha256_of_every_length_in_pieces(sha256: ctypes.CDLL) -> None:
    data = np.random.default_rng(5).integers(0, 256, 200, np.uint8).tobytes()
    for n in range(200):
        assert digest(sha256, data[:n], n // 3) == hashlib.sha256(data[:n]).digest()


@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ],
)
def test_hmac_of_the_standards_examples(sha256: ctypes.CDLL, key: bytes, data: bytes, expected: str) -> None:
    """RFC 4231, cases 1 to 4."""
    out = ctypes.create_string_buffer(32)
    sha256.hmac_probe(key, len(key), data, len(data), out)
    assert out.raw.hex() == expected


def build(compiled: Compiled, folder: Path, defines: str) -> Compiled:
    """The same program with another link."""
    project = folder / "project"
    shutil.copytree(compiled.folder / "project", project, ignore=shutil.ignore_patterns("build"))
    if "KEY" in defines:
        (project / "src" / "link_key.c").write_text(_key_source(KEY))
    subprocess.run(["make", "-s", "-j2", "host", f"LINK={defines}", "CFLAGS=-O1"], cwd=project, check=True)
    return replace(compiled, folder=folder)


@pytest.fixture(scope="module")
def keyed(digitnet_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return build(digitnet_host, tmp_path_factory.mktemp("keyed"), "-DMDY_LINK_KEY=1")


@pytest.fixture(scope="module")
def closed(digitnet_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """As a board's own rule builds it."""
    return build(digitnet_host, tmp_path_factory.mktemp("closed"), "")


def test_without_a_flag_nobody_may_do_what_is_guarded(closed: Compiled, samples: Samples, tmp_path: Path) -> None:
    with HostProgram(closed.image, tmp_path / "flash.bin") as program:
        replies(program, frame(1, BEGIN, TRAINING.fields(0)))
        for number, (command, fields) in enumerate(GUARDED):
            assert [r[3] for r in replies(program, frame(2 + number, command, fields), 0.1)] == [12]
        assert [r[3] for r in replies(program, frame(99, CHALLENGE), 0.1)] == [1]
        session = Session(Link(program), KEY)
        session.begin(TRAINING)
        session.train(samples.x[0], int(samples.y[0]))
        session.commit()
        assert len(session.logits()) == 10 and session.selection().any()
        for call in (session.reset, session.roll_back, session.newest_bank, lambda: session.read(STATE)):
            with pytest.raises(LinkError, match="lets nobody"):
                call()
        session.exit()
        assert session.digests()  # it still runs


def test_with_the_key_everything_may_be_done(keyed: Compiled, samples: Samples, tmp_path: Path) -> None:
    counts = [0] * len(keyed.plan["candidates"])
    with HostProgram(keyed.image, tmp_path / "flash.bin") as program:
        session = Session(Link(program), KEY)
        session.begin(TRAINING)
        session.force([1, *counts[1:]])
        session.train(samples.x[0], int(samples.y[0]))
        session.commit()
        assert len(session.read(STATE)) > 0 and len(session.newest_bank()) > 64
        session.roll_back()
        session.begin(TRAINING)
        session.reset()
        session.exit()
        assert program.process is not None and program.process.wait(10) == 0


@pytest.mark.parametrize(
    ("key", "why"), [(None, "asks for the key"), (bytes(32), "another key"), (KEY[:-1], "another key")], ids=str
)
def test_without_the_key_nothing_may_be_done(keyed: Compiled, tmp_path: Path, key: bytes | None, why: str) -> None:
    with HostProgram(keyed.image, tmp_path / "flash.bin") as program:
        session = Session(Link(program), key)
        session.begin(TRAINING)
        for call in (session.reset, session.roll_back, session.newest_bank, lambda: session.read(STATE)):
            with pytest.raises(LinkError, match=why):
                call()
        assert session.digests()


def sealed(sequence: int, command: int, fields: bytes, nonce: bytes, key: bytes = KEY) -> bytes:
    body = bytes([PROTOCOL, sequence, command, 0xFF, 0, 0]) + fields
    return encode(body + hmac.digest(key, nonce + body, "sha256")[:16])


def challenge(program: HostProgram, sequence: int) -> bytes:
    (reply,) = replies(program, frame(sequence, CHALLENGE), 0.1)
    assert reply[3] == 0 and len(reply) == 22
    return reply[6:]


def test_a_recorded_request_is_worth_nothing(keyed: Compiled, tmp_path: Path) -> None:
    def status(sent: bytes) -> int:
        (reply,) = replies(program, sent, 0.1)
        return reply[3]

    nonces = set()
    for _ in range(2):  # after a restart, too
        with HostProgram(keyed.image, tmp_path / "flash.bin") as program:
            replies(program, frame(1, BEGIN, TRAINING.fields(0)))
            assert status(sealed(2, RESET, b"", bytes(16))) == 12  # no challenge yet
            nonce = challenge(program, 3)
            recorded = sealed(4, ROLL_BACK, b"", nonce)
            assert status(recorded) == 5  # allowed: there is no generation
            assert status(recorded) == 5  # the kept answer
            replies(program, frame(5, HELLO))
            assert status(recorded) == 12
            other = challenge(program, 6)
            assert status(recorded) == 12  # under another challenge
            assert status(sealed(4, ROLL_BACK, b"", other)) == 12  # which that attempt has used up
            wrong = bytearray(sealed(7, RESET, b"", challenge(program, 6 + 2)))
            assert status(sealed(9, RESET, b"x", bytes(wrong[-17:-1]))) == 12
            nonces |= {nonce, other}
    assert len(nonces) == 4


def test_a_key_that_is_none_is_refused(
    run_cli: Cli, small_digits: Path, digitnet_host: Compiled, tmp_path: Path
) -> None:
    (tmp_path / "key.hex").write_text("0123 not hex")
    for key, why in (
        (tmp_path / "key.hex", "hexadecimal"),
        ("xyz", "hexadecimal"),
        ("0011", "2 B"),
        ("00" * 65, "65 B"),
    ):
        ended = run_cli("run", digitnet_host.folder, "--data", small_digits, "--link-key", key)
        assert ended.code == 2 and why in ended.err, ended.err


def test_an_image_with_a_key_is_compiled_run_and_read_out(run_cli: Cli, small_digits: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "out", tmp_path / "key.hex"
    key.write_text(" ".join(f"{byte:02x}" for byte in KEY) + "\n")
    model = DIGITNET
    assert run_cli("compile", model, "--data", small_digits, "--ram", "64KiB", "-o", out, "--link-key", key).code == 0
    assert (out / "project" / "src" / "link_key.c").stat().st_mode & 0o77 == 0
    run = ("run", out, "--data", small_digits, "--rate", 0.01, "--epochs", 1, "--limit", 4, "--evaluate-at-end")
    ended = run_cli(*run)
    assert ended.code == 2 and "asks for the key" in ended.err
    assert run_cli(*run, "--link-key", key).code == 0
    export = ("export", out, "-o", tmp_path / "net.onnx", "--on", "host")
    ended = run_cli(*export)
    assert ended.code == 2 and "asks for the key" in ended.err
    assert run_cli(*export, "--link-key", KEY.hex()).code == 0
