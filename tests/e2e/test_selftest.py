# SPDX-License-Identifier: Apache-2.0
"""`medyate selftest`: a good target passes every check, each fault fails its own, and no training is lost unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Cli, Ended
from line import Line
from medyate.run.link import Link
from medyate.run.session import SELF_TEST, Found, Position, Session, Training
from medyate.run.train import Compiled
from medyate.run.transport import SerialPort
from medyate.selftest import Options, Seen, commit_time
from tiny import compile_tiny, samples_of

BANKS = ("commit", "commit to the other bank, both read back", "resume from flash", "4 training steps after the resume")
SETTINGS = ("--epochs", 1, "--rate", 0.02, "--no-measure")


def checks(ended: Ended) -> dict[str, Any]:
    """Each check's mark, by name."""
    result = json.loads(ended.out)
    marks = {check["name"]: check["passed"] for check in result["checks"]}
    assert result["passed"] == (False not in marks.values()) == (ended.code == 0)
    return marks


def test_the_host_passes(tiny_host: Compiled, run_cli: Cli) -> None:
    ended = run_cli("selftest", tiny_host.folder, "--json")
    assert ended.code == 0, ended.err
    marks = checks(ended)
    assert [name for name, mark in marks.items() if mark] == ["64 training steps", *BANKS, "restart"]
    assert not (tiny_host.folder / "flash.bin").exists()


def test_an_emulated_core_passes_with_memory_and_instructions_of_the_plan(tiny_m7: Compiled, run_cli: Cli) -> None:
    ended = run_cli("selftest", tiny_m7.folder, "--on", "qemu")
    assert ended.code == 0, ended.err
    said = ended.out.splitlines()
    assert [line.split("  ")[0] for line in said[:-1]] == ["ok"] * 9 + ["not done"]
    assert "of 65,536 B" in ended.out or "B used, stack included" in ended.out
    assert said[-1].endswith("9 of 10 checks passed, 1 not done")


@pytest.fixture
def wrong(tiny_m7: Compiled, tmp_path: Path) -> Callable[[str, str, str], Path]:
    """A folder whose sources, of which this machine's program is built, differ from the image's."""

    def make(name: str, old: str, new: str) -> Path:
        folder = tmp_path / "out"
        shutil.copytree(tiny_m7.folder, folder)
        source = folder / "project" / name
        text = source.read_text()
        assert text.count(old) == 1
        source.write_text(text.replace(old, new))
        return folder

    return make


def test_other_integers_fail(wrong: Callable[[str, str, str], Path], run_cli: Cli) -> None:
    folder = wrong("runtime/src/schedule.c", "factor = 65536;", "factor = 65000;")
    ended = run_cli("selftest", folder, "--on", "qemu", "--json")
    marks = checks(ended)
    assert ended.code == 1
    assert not marks["64 training steps"]
    assert marks["RAM"]


def test_memory_beyond_the_plan_fails(tiny_m7: Compiled, tmp_path: Path, run_cli: Cli) -> None:
    folder = tmp_path / "out"
    shutil.copytree(tiny_m7.folder, folder)
    plan = json.loads((folder / "05_plan.json").read_text())
    plan |= {"ram_limit_bytes": 4096, "stack_reserved_bytes": 64, "step_instructions_bound": 1000}
    (folder / "05_plan.json").write_text(json.dumps(plan))
    marks = checks(run_cli("selftest", folder, "--on", "qemu", "--json"))
    assert {name for name, mark in marks.items() if mark is False} == {"RAM", "stack", "time of a training step"}


def board(program: Path, folder: Path, fault: str = "") -> Path:
    """A program that starts anew when it ends, as a board does; the first time with a fault of its flash."""
    script = folder / "board"
    first = f"{fault} {program.resolve()}\n" if fault else ""
    script.write_text(f"#!/bin/sh\n{first}while :; do {program.resolve()}; done\n")
    script.chmod(0o755)
    return script


FAULTS = {
    "MDY_FLASH_FAIL": ("3:9", BANKS),
    "MDY_FLASH_IGNORE": ("3:90", BANKS),
    "MDY_FLASH_CUT": ("3:inside", BANKS),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_flash_that_fails_is_told(fault: str, tiny_host: Compiled, tmp_path: Path, run_cli: Cli) -> None:
    """The board is the host's program behind a terminal line, with a flash that has the fault."""
    value, failing = FAULTS[fault]
    with Line(board(tiny_host.image, tmp_path, f"{fault}={value}"), tmp_path / "cells") as line:
        ended = run_cli("selftest", tiny_host.folder, "--on", line.port, "--no-reset", "--json")
    marks = checks(ended)
    assert ended.code == 1
    assert {name for name, mark in marks.items() if mark is False} == set(failing)
    assert marks["64 training steps"]
    assert "not reached" in ended.out


def test_what_a_board_has_learned_is_not_lost_unasked(tiny_host: Compiled, tmp_path: Path, run_cli: Cli) -> None:
    host, photos = tiny_host, tiny_host.folder.parent / "data.npz"
    settings = (*SETTINGS, "--log", tmp_path / "run.json")
    with Line(board(host.image, tmp_path), tmp_path / "cells") as line:
        on = ("--on", line.port)
        assert run_cli("run", host.folder, "--data", photos, *on, *settings).code == 0
        cells = (tmp_path / "cells").read_bytes()
        refused = run_cli("selftest", host.folder, *on)
        assert refused.code == 2
        assert "holds generation 1 of this model, trained for 1 epoch" in refused.err and "--fresh" in refused.err
        spared = run_cli("selftest", host.folder, *on, "--no-flash", "--json")
        assert spared.code == 0 and checks(spared)["flash"] is None
        assert (tmp_path / "cells").read_bytes() == cells
        for fresh in (("--fresh",), ()):  # the second time it finds its own generations, which are nobody's training
            again = run_cli("selftest", host.folder, *on, *fresh)
            assert again.code == 0, again.err + again.out
        assert run_cli("run", host.folder, "--data", photos, *on, *settings).code == 0


def test_a_board_whose_link_is_open_is_reset_by_the_test(tiny_host: Compiled, tmp_path: Path, run_cli: Cli) -> None:
    with Line(board(tiny_host.image, tmp_path), tmp_path / "cells") as line:
        ended = run_cli("selftest", tiny_host.folder, "--on", line.port, "--json")
    assert ended.code == 0, ended.out
    assert checks(ended)["restart"]
    assert "press" not in ended.err


@pytest.mark.parametrize("on", ["qemu", "serial:/dev/no-such-port", "telepathy"])
def test_mistakes_of_the_user_end_with_2(on: str, tiny_host: Compiled, run_cli: Cli) -> None:
    assert run_cli("selftest", tiny_host.folder, "--on", on).code == 2


def test_a_training_in_ram_is_not_lost_unasked(tmp_path: Path, run_cli: Cli) -> None:
    host = compile_tiny(tmp_path, weights="ram")
    with Line(board(host.image, tmp_path), tmp_path / "cells") as line:
        on, samples = ("--on", line.port), samples_of(host)
        ended = run_cli("selftest", host.folder, *on, "--json")
        assert ended.code == 0 and checks(ended)["flash"] is None
        with SerialPort(line.name) as port:
            session = Session(Link(port))
            session.begin(Training(0.02, 1, 8))
            session.train(samples.x[0], samples.y[0])
        refused = run_cli("selftest", host.folder, *on)
        assert refused.code == 2 and "a training in RAM" in refused.err
        assert run_cli("selftest", host.folder, *on, "--fresh").code == 0


@pytest.mark.parametrize(("seconds", "passes"), [(0.9, True), (2.9, True), (3.6, False)])
def test_a_commit_may_take_the_largest_time_on_flash_and_the_cores_work(seconds: float, passes: bool) -> None:
    bank = {"bytes": 49152, "commit_ms": 932.0, "commit_max_ms": 2640.0}
    chip = Compiled(Path(), {"target": "stm32f405", "banks": {"banks": [bank, bank], "generation_bytes": 45588}}, {})
    position = Position(1, 1, 64, 0, SELF_TEST.settings(), 0, (Found("empty", 0, 0, 0),) * 2)
    seen = Seen(positions=[position] * 3, commit_seconds=[0.9, seconds])
    assert commit_time(chip, Options("serial:x"), seen).passed == passes
    assert commit_time(chip, Options("host"), seen).passed is None
