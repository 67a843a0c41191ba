# SPDX-License-Identifier: Apache-2.0
"""Whatever is started can be found on a machine on which `make setup` alone has run. Costs 1 s."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from programs import program
from shared_files import ROOT

FOLDERS = ("compiler", "firmware", "models", "tests", "tools")


def scripts_of_packages() -> set[str]:
    """Programs that pip installs: their folder is on nobody's PATH."""
    named = {entry.name for d in distributions() for entry in d.entry_points if entry.group == "console_scripts"}
    placed = {Path(file).name for d in distributions() for file in d.files or () if "bin" in Path(file).parts[:-1]}
    return named | placed


def commands(source: str) -> Iterator[tuple[int, str]]:
    """(line, program) of every list that begins with a word, as commands do; decorators hold values of tests."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.List(elts=[ast.Constant(value=str(word)), *_]):
                yield node.lineno, word
        decorators = getattr(node, "decorator_list", [])
        waiting += [child for child in ast.iter_child_nodes(node) if child not in decorators]


def test_no_program_of_a_package_is_started_by_its_bare_name() -> None:
    scripts = scripts_of_packages()
    assert {"cmake", "ruff", "mypy", "pytest", "platformio", "scons"} <= scripts
    assert list(commands('run(["cmake", "-S"])')) == [(1, "cmake")]
    found = [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
        if "subprocess" in (text := file.read_text()) and file != Path(__file__)
        for line, name in commands(text)
        if name in scripts
    ]
    assert not found, "use programs.program, or sys.executable with -m"


def test_the_makefile_takes_packages_programs_from_the_virtual_environment() -> None:
    words = "|".join(sorted(map(re.escape, scripts_of_packages() - {"python3"})))
    recipes = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t")]
    bare = [line for line in recipes if re.search(rf"(^\t@?|[;&|{{] *)({words}) ", line)]
    assert recipes
    assert not bare


def test_a_program_beside_python_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(program("pytest")).parent == Path(sys.executable).parent
    with pytest.raises(AssertionError, match="make setup"):
        program("no-such-program")
