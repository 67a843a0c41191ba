# SPDX-License-Identifier: Apache-2.0
"""docs/LIBRARY.md: its commands are run as they stand there, and what it names exists."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from conftest import REPOSITORY, Cli
from medyate.build.package import KINDS
from medyate.build.project import APPS
from medyate.run.train import Compiled

PAGE = (REPOSITORY / "docs" / "LIBRARY.md").read_text()
PACKAGES = REPOSITORY / "firmware" / "packages"


def commands(name: str) -> list[str]:
    return re.findall(rf"^    (medyate {name} .*)$", PAGE, re.MULTILINE)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("command", commands("package"))
def test_each_package_command_does_what_it_says(
    command: str, tiny_host: Compiled, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_host.folder, "out")
    arguments = shlex.split(command.replace("~/", ""))[1:]
    ended = run_cli(*arguments)
    assert ended.code == 0, ended.err
    folder = Path(arguments[arguments.index("-o") + 1])
    assert {path.name for path in folder.iterdir()} == {"medyate", *(("mdy_model",) if "out/" in arguments else ())}


def test_every_kind_and_every_application_is_on_the_page() -> None:
    packed = {command.split("--for ")[1].split()[0] for command in commands("package")}
    assert packed == set(KINDS)
    assert set(re.findall(r"^\| `(\w+)` \|", section("The applications"), re.MULTILINE)) == set(APPS)


def test_the_options_of_a_platformio_project_are_those_that_are_read() -> None:
    script = (PACKAGES / "platformio/runtime/regenerate.py").read_text()
    runner = (PACKAGES / "platformio/runtime/test_custom_runner.py").read_text()
    read = {f"custom_medyate_{name}" for name in re.findall(r'option\("(\w+)"', script)} | {"custom_medyate_python"}
    read |= set(re.findall(r'"(custom_qemu_\w+)"', runner))
    assert set(re.findall(r"custom_\w+", section("PlatformIO"))) - {"custom_runner"} == read


@pytest.mark.parametrize(("title", "kind"), [("Zephyr", "zephyr"), ("ESP-IDF", "espidf")])
def test_paths_and_symbols_of_the_other_systems_exist(title: str, kind: str) -> None:
    text = section(title)
    for path in re.findall(r"mdy_model/((?:samples|examples)/\w+)", text):
        assert (PACKAGES / kind / "model" / path).is_dir()
    symbols = {name for file in PACKAGES.rglob("Kconfig") for name in re.findall(r"config (\w+)", file.read_text())}
    assert {name.removeprefix("CONFIG_") for name in re.findall(r"CONFIG_\w+", text)} <= symbols


def test_a_folder_that_was_not_compiled_cannot_be_packed(tmp_path: Path, run_cli: Cli) -> None:
    for arguments in (("--for", "platformio"), ("--for", "cargo")):
        ended = run_cli("package", tmp_path, *arguments, "-o", tmp_path / "lib")
        assert ended.code == 2
        assert not (tmp_path / "lib").exists()
