# SPDX-License-Identifier: Apache-2.0
"""What commands print is text: brackets and colons of names, paths and messages stay. Costs 5 s."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner

from conftest import DIGITNET, REPOSITORY, Cli
from medyate.cli import commands
from medyate.terminal import console, plain

NAMES = ("[bold]stem[/bold]", "[/closed]", "[0]", "a[red]", ":smile:", "back\\[slash]")
"""rich takes these for styles, an error, or a picture."""


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """The demonstration network in a folder, with a file name and with layers that hold brackets."""
    model = onnx.load(DIGITNET)
    for number, node in enumerate(model.graph.node):
        node.name = f"{number}{NAMES[number % len(NAMES)]}"
    path = tmp_path / "[net] :smile:" / "[v1].onnx"
    path.parent.mkdir()
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_console_prints_names_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for stderr in (False, True):
        plain(stderr=stderr).print(name)
    assert capsys.readouterr() == (f"{name}\n", f"{name}\n")


def test_nothing_prints_past_it() -> None:
    others = [
        f"{file.relative_to(REPOSITORY)}:{number}"
        for folder in ("compiler", "tools")
        for file in (REPOSITORY / folder).rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if ("Console(" in line or ("TextColumn(" in line and "markup=False" not in line)) and file.name != "terminal.py"
    ]
    assert not others


def test_layers_are_listed_under_their_own_names(named: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)
    layers = [row["layer"] for row in json.loads(run_cli("inspect", named, "--json").out)["layers"]]
    ended = run_cli("inspect", named)
    assert ended.code == 0
    assert all(any(name in layer for layer in layers) for name in NAMES)
    for layer in layers:
        assert f" {layer} " in ended.out


def test_plan_and_ranking_name_layers_and_files(
    named: Path, small_digits: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ranked = run_cli("rank", named, "--data", small_digits, "--epochs", 1, "-o", named.parent / "[r].json")
    assert ranked.code == 0, ranked.err
    assert "[/closed]" in ranked.out
    data = np.load(small_digits)
    np.savez(named.parent / "[d].npz", **data)
    planned = run_cli(
        *("plan", named, "--data", named.parent / "[d].npz", "--ram", "64KiB"),
        *("--ranking", named.parent / "[r].json", "--head", "keep"),
    )
    assert planned.code == 0, planned.err
    assert any(name in planned.out for name in NAMES)
    assert "the peak is" in planned.out


def test_a_refusal_names_the_file(named: Path, run_cli: Cli) -> None:
    for path in (named.parent / "[none].onnx", named.parent / "[x].bin"):
        ended = run_cli("inspect", path)
        assert ended.code == 2
        assert f"'{path}'" in ended.err


def test_doctor_names_the_extras(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medyate.extras.installed", lambda _module: False)
    told = run_cli("doctor").out
    for extra in ("torch", "onnx", "tflite", "report", "study", "sweep", "digits"):
        assert f"pip install 'medyate[{extra}]'" in told


def test_help_loses_nothing() -> None:
    """Help is the one text that is markup: what is written in it must not look like some."""
    pending, seen = [typer.main.get_command(commands.app)], 0
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        for text in filter(None, texts):
            assert "[" not in text.split("\f")[0]
            seen += 1
    assert seen > 100
    assert "Fine-tune" in CliRunner().invoke(commands.app, ["--help"]).output
