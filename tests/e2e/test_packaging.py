# SPDX-License-Identifier: Apache-2.0
"""What users get besides the sources: the wheel, the linker's verdict, the other build systems."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from medyate.build.compile import build
from medyate.errors import BudgetError
from medyate.plan.budget import Limits
from medyate.run.train import Compiled
from medyate.stages import Options, compile_model
from programs import program
from shared_files import ROOT, field_digits

DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"


def test_the_wheel_compiles_a_model_outside_the_repository(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    script = (
        "import sys, medyate; from pathlib import Path; from medyate import datasets, stages;"
        "from medyate.plan.budget import Limits;"
        "assert Path(medyate.__file__).is_relative_to(sys.argv[1]), medyate.__file__;"
        "o = stages.Options('qemu-m4', Limits(64 << 10), builder='make', rank_epochs=1);"
        "stages.compile_model(Path(sys.argv[2]), datasets.load('digits'), o, Path('out'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", script, str(site), str(DIGITNET)], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "out" / "project" / "build" / "qemu-m4" / "firmware.elf").exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compiled, object]:
    folder = tmp_path_factory.mktemp("small")
    options = Options("host", Limits(24 * 1024), head="keep", rank_epochs=1)
    plan, _ = compile_model(DIGITNET, field_digits(), options, folder)
    return Compiled.read(folder), plan


@pytest.mark.parametrize("builder", ["platformio", "make"])
def test_an_arena_that_does_not_fit_the_board_does_not_link(
    small: tuple[Compiled, object], builder: str, tmp_path: Path
) -> None:
    from medyate.build.project import write_project

    _, plan = small
    write_project(plan, tmp_path / "project", board_ram_bytes=16 * 1024)  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match="overflowed by"):
        build(plan, tmp_path / "project", "qemu-m7", builder)  # type: ignore[arg-type]


def test_cmake_builds_the_host_program(small: tuple[Compiled, object], tmp_path: Path) -> None:
    compiled, _ = small
    source, cmake = str(compiled.folder / "project"), program("cmake")
    for command in ([cmake, "-S", source, "-B", str(tmp_path)], [cmake, "--build", str(tmp_path)]):
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "firmware").exists()
