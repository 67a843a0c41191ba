# SPDX-License-Identifier: Apache-2.0
"""The wheel where pip installed one extra, or none: every command works, or names what it needs."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conftest import DIGITNET, REPOSITORY
from shared_files import shared

EXTRAS = ("", "onnx", "tflite", "torch")
COMMANDS = (
    "doctor",
    "boards",
    "strategies",
    "version",
    "inspect {model}",
    "verify {model}",
    "verify {model} --data data.npz",
    "plan {model} --data data.npz --ram 64KiB --json",
    "compile {model} --data data.npz -o out",
    "rank {model} --data data.npz -o ranking.json",
    "package out --for arduino -o libraries",
    "run out --data data.npz",
    "bench out --json",
    "bench {model} --data data.npz --ram 64KiB --json",
    "report out",
    "export out -o trained.onnx",
    "export out -o trained.tflite",
    "reset out",
    "study study.toml",
    "study report RESULTS",
    "study scheme {model} --data data.npz --budget 100 -o scheme.json",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@cache
def needed(name: str, extra: str) -> frozenset[str]:
    """The distributions that pip would install for one: what it requires, and what that requires."""
    found: set[str] = set()
    todo = [(name, extra)]
    while todo:
        current, extra = todo.pop()
        for text in importlib.metadata.requires(current) or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name.lower() not in found:
                found.add(requirement.name.lower())
                todo += [(requirement.name, one) for one in requirement.extras or ("",)]
    return frozenset(found)


def environment(folder: Path, wheel: Path, extra: str) -> Path:
    """A bare virtual environment with the wheel and what pip would have installed with it; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    zipfile.ZipFile(wheel).extractall(site)
    for name in needed("medyate", extra):
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


Bare = Callable[[str], Path]


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Python with an extra, made once."""
    return cache(lambda extra: environment(tmp_path_factory.mktemp("venv"), wheel, extra))


def run(python: Path, folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`medyate ...` in such an environment, from somewhere else."""
    text = "import sys; from medyate.cli import main; main()"
    command = [str(python), "-I", "-c", text, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra or "none")
def test_an_environment_has_what_its_extra_says_and_no_more(bare: Bare, extra: str) -> None:
    python = bare(extra)
    text = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'onnxruntime', 'tflite', 'matplotlib', " \
        "'scipy', 'sklearn', 'ray', 'pytest') if u.find_spec(n)])"  # fmt: skip
    ran = subprocess.run([python, "-I", "-c", text], capture_output=True, text=True, check=True)
    wanted = {"": [], "onnx": ["onnx", "onnxruntime"], "tflite": ["tflite"], "torch": ["torch"]}
    assert ran.stdout.strip() == str(wanted[extra])


FIRST = (("", "onnx"), ("onnx", "onnx"), ("tflite", "tflite"))
PAIRS = [
    pytest.param(extra, form, marks=() if (extra, form) in FIRST else pytest.mark.long, id=f"{extra or 'none'}-{form}")
    for extra in EXTRAS
    for form in ("onnx", "tflite", "pt2")
]


@pytest.mark.parametrize(("extra", "form"), PAIRS)
def test_every_command_works_or_names_what_it_needs(
    bare: Bare, extra: str, form: str, small_digits: Path, tmp_path: Path
) -> None:
    python = bare(extra)
    model = {"onnx": DIGITNET, "tflite": shared("models/ad_autoencoder_int8.tflite"), "pt2": tmp_path / "net.pt2"}[form]
    (tmp_path / "data.npz").write_bytes(small_digits.read_bytes())
    (tmp_path / "study.toml").write_text("name = 'x'\n")
    if form == "pt2":
        model.write_bytes(b"PK")
    worked = set()
    for command in COMMANDS:
        if form != "onnx" and "{model}" not in command:
            continue  # the same whatever the format
        arguments = command.format(model=model).split()
        ran = run(python, tmp_path, arguments)
        said = ran.stdout + ran.stderr
        assert "Traceback" not in said, (command, said)
        if ran.returncode == 0:
            worked.add(arguments[0])
        elif command == "doctor":
            assert "MISSING" in ran.stdout
        else:
            assert ran.returncode == 2 and re.search(r"^medyate: ", ran.stderr, re.MULTILINE), (command, said)
    if form == "onnx":
        assert {"boards", "strategies", "version"} <= worked
        assert ("inspect" in worked) == (extra == "onnx")
    if form == "tflite":
        assert ("inspect" in worked) == (extra == "tflite")
