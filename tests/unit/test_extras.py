# SPDX-License-Identifier: Apache-2.0
"""A package that is missing is said in one sentence before anything is read, with exit code 2. Costs 25 s."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import DIGITNET, REPOSITORY, Cli
from medyate import extras
from medyate.errors import ToolchainError
from medyate.run.train import Compiled

NETWORKS = {"torch": ("pt2", "pth", "th", "pkl"), "onnx": ("onnx",), "tflite": ("tflite",), "flatbuffers": ("tflite",)}
"""Files that a module reads. None of them exists: the package is missed first."""
READ = (
    "inspect net.{}",
    "verify net.{}",
    "verify net.{} --data nowhere",
    "plan net.{} --data nowhere",
    "compile net.{} --data nowhere -o out",
    "rank net.{} --data nowhere -o out.json",
    "study scheme net.{} --data nowhere --budget 100 -o scheme.json",
)
DRAW = (
    "plan net.onnx --data nowhere -o out",
    "plan net.onnx --data nowhere --picture map.svg",
    "plan net.onnx --data nowhere --frontier -o out",
    "rank --compare a.json b.json -o picture.png",
    "report nowhere",
    "report nowhere -o picture.png",
    "study report RESULTS",
)
MISSING = [
    *((module, command.format(suffix)) for module, held in NETWORKS.items() for suffix in held for command in READ),
    *(("torch", command.format(suffix)) for suffix in ("onnx", "tflite") for command in READ[1:]),
    *(("matplotlib", command) for command in DRAW),
    ("onnxruntime", "verify net.onnx"),
    ("onnxruntime", "verify net.onnx --data nowhere"),
    ("onnx", "export nowhere -o net.onnx"),
    ("tflite", "export nowhere -o net.tflite"),
    ("flatbuffers", "export nowhere -o net.tflite"),
    ("scipy", "rank --compare a.json b.json"),
    ("scipy", "study report RESULTS"),
    ("sklearn", f"plan {DIGITNET} --data digits"),
    ("sklearn", f"compile {DIGITNET} --data digits -o out"),
    ("sklearn", f"rank {DIGITNET} --data digits -o out.json"),
    ("sklearn", f"verify {DIGITNET} --data digits"),
    ("PIL", f"plan {DIGITNET} --data FOLDER"),
    ("torch", "study STUDY"),
    ("onnx", "study STUDY"),
    ("sklearn", "study STUDY"),
    ("scipy", "study STUDY"),
    ("ray", "study STUDY --cluster local"),
]
STUDY = """
name = "made up"
engine = "float"
stability = true
[grid]
network = ["net.onnx"]
data = ["digits"]
strategy = ["medyate"]
budget = [1000]
seed = [0]
rate = [0.01]
"""


@pytest.mark.parametrize(("module", "command"), MISSING)
def test_a_missing_package_is_said_first(
    module: str, command: str, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "images").mkdir()
    places = {"STUDY": "study.toml", "FOLDER": "images", "RESULTS": REPOSITORY / "docs" / "studies" / "alpha.sqlite"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails as if it were not installed
    ended = run_cli(*(places.get(word, word) for word in command.split()))
    assert ended.code == 2, ended.err
    assert f"needs {extras.PACKAGES.get(module, module)}.\n  Install with: {extras.install([module])}\n" in ended.err
    assert len(ended.err.splitlines()) == 2
    left = {path.name for path in tmp_path.iterdir()} - {"study.toml", "images"}
    assert not left, "work had begun"


def test_every_module_of_an_extra_is_missed_above() -> None:
    assert {module for held in extras.EXTRAS.values() for module in held} <= {module for module, _ in MISSING}


def test_the_extras_are_those_of_the_package() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: {text.partition(">=")[0] for text in needs} for extra, needs in listed.items() if extra != "dev"}
    packages = {**extras.PACKAGES, "torch": "torch"}
    assert names == {extra: {packages.get(m, m) for m in modules} for extra, modules in extras.EXTRAS.items()}


def test_a_run_without_its_data_set_does_not_begin(
    digitnet_host: Compiled, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(digitnet_host.folder, tmp_path / "out")
    (out / "flash.bin").unlink(missing_ok=True)  # of a test that trained there
    monkeypatch.setitem(sys.modules, "sklearn", None)
    ended = run_cli("run", out, "--data", "digits")
    assert (ended.code, "pip install 'medyate[digits]'" in ended.err) == (2, True)
    assert not (out / "flash.bin").exists()


def test_several_missing_packages_are_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "scipy", "PIL"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolchainError) as raised:
        extras.require("a report", "matplotlib", "scipy", "numpy", "PIL")
    assert raised.value.what == "a report needs matplotlib, scipy and pillow."
    assert raised.value.remedy == "Install with: pip install 'medyate[report,study]' pillow"


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from medyate.cli import main
main()
"""


def without(modules: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a Python that never saw these modules."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(modules=modules), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "compiler")},
    )


ALL = tuple({module for held in extras.EXTRAS.values() for module in held})


def test_the_core_imports_no_extra() -> None:
    assert without(ALL, "version").returncode == 0
    doctor = without(ALL, "doctor")
    assert doctor.returncode == 2
    assert doctor.stdout.count("MISSING") == len(ALL)
    for extra in set(extras.EXTRAS) - {"study"}:
        assert f"pip install 'medyate[{extra}]'\n" in doctor.stdout
    assert "scipy    pip install 'medyate[study]'\n" in doctor.stdout


def test_a_network_is_described_without_pytorch() -> None:
    done = without(tuple(set(ALL) - {"onnx"}), "inspect", DIGITNET)
    assert (done.returncode, "46,154 parameters" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("command", ["plan", "compile", "verify", "rank"])
def test_onnx_without_pytorch_is_two_sentences(command: str, tmp_path: Path) -> None:
    out = () if command == "verify" else ("-o", tmp_path / "out.json")
    done = without(("torch",), command, DIGITNET, "--data", "digits", *out)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("medyate: calibration needs PyTorch.\n  Install with: pip install 'medyate[torch]'\n")


def test_what_nobody_asked_for_beforehand_is_no_traceback(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise ModuleNotFoundError("No module named 'scipy.stats'", name="scipy.stats")

    monkeypatch.setattr("medyate.cli.commands.app", app)
    ended = run_cli("version")
    assert (ended.code, ended.err) == (2, "medyate: this needs scipy.\n  Install with: pip install 'medyate[study]'\n")
    library = extras.told(ImportError("libm.so.9: no such file", name="onnx.onnx_cpp2py_export"))
    assert library is not None
    assert library.what == "onnx is installed and does not load (libm.so.9: no such file)."
    assert extras.told(ModuleNotFoundError("No module named 'no_extra'", name="no_extra")) is None
