# SPDX-License-Identifier: Apache-2.0
"""The runtime and generated models as parts of somebody's own program: C++, two models, other build systems."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medyate.assets import PORTABLE, assets, kernel_files
from medyate.boards import BOARDS
from medyate.build.compile import build
from medyate.build.project import write_project
from medyate.cli.commands import app
from medyate.errors import DataError, ToolchainError
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan
from medyate.run.train import Compiled, connect
from medyate.run.transport import emulator
from medyate.stages import Options, compile_model
from programs import program
from shared_files import ROOT, field_digits

DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
SOURCE = Path(__file__).parent.parent / "c" / "models.cc"
RUNTIME = assets() / "runtime_c"
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


@dataclass(frozen=True)
class Model:
    """A compiled model with a prefix."""

    prefix: str
    plan: Plan
    folder: Path

    @property
    def sources(self) -> Path:
        """Where the generated files lie."""
        return self.folder / "project" / "src"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """One network, planned in two ways: most names of the generated files are the same."""
    made: dict[str, Model] = {}
    ranking = None
    for prefix, limits in (("first", Limits(24 << 10)), ("second", Limits(64 << 10, batch=4))):
        folder = tmp_path_factory.mktemp(prefix)
        options = Options("host", limits, rank_epochs=1, ranking=ranking, prefix=prefix)
        made[prefix] = Model(prefix, compile_model(DIGITNET, field_digits(), options, folder)[0], folder)
        ranking = folder / "04_ranking.json"
    return made


def compiled(
    folder: Path,
    parts: list[Model],
    compiler: tuple[str, str],
    flags: tuple[str, ...],
    standard: str = "c++17",
    link: tuple[str, ...] = (),
) -> Path:
    """A program with some models."""
    c, cxx = compiler
    includes = [f"-I{RUNTIME / 'include'}", f"-I{RUNTIME / 'ports' / 'emu'}", *(f"-I{m.sources}" for m in parts)]
    sources = [*(RUNTIME / "src").rglob("*.c"), *(RUNTIME / "kernels" / f for f in kernel_files(PORTABLE))]
    sources = [file for file in sources if file.name not in ("serve.c", "link.c")]
    sources += [RUNTIME / "ports" / "emu" / "flash_emu.c", *(f for m in parts for f in m.sources.glob("*.c"))]
    warnings = ("-Wall", "-Wextra", "-Wshadow", "-Wstrict-aliasing=2", "-Werror")
    folder.mkdir()
    c_flags = [flag for flag in flags if flag != "-fno-rtti"]  # which C does not have
    subprocess.run([c, "-std=c11", *warnings, *c_flags, *includes, "-c", *map(str, sources)], cwd=folder, check=True)
    own = [f"-DWITH_{m.prefix.upper()}" for m in parts]
    command = [cxx, f"-std={standard}", *warnings, *flags, *includes, *own, "-c", str(SOURCE), "-o", "models.o"]
    subprocess.run(command, cwd=folder, check=True)
    # Debian's C++ library for Cortex-M lacks what nano.specs asks for: C links it.
    objects = map(str, folder.glob("*.o"))
    subprocess.run([c if link else cxx, *c_flags, *objects, *link, "-o", str(folder / "program")], check=True)
    return folder / "program"


def printed(path: Path) -> list[str]:
    """Each model's digests of losses, selections, state and flash, after three epochs."""
    return subprocess.run([str(path)], check=True, capture_output=True, text=True).stdout.splitlines()


COMPILERS = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}
BUILDS = [
    ("gcc", ("-O2", "-fstrict-aliasing")),
    ("clang", ("-O2", "-fstrict-aliasing")),
    pytest.param("gcc", ("-O3", "-flto", "-fstrict-aliasing"), marks=pytest.mark.long),
    pytest.param("clang", ("-O2", "-flto", "-fstrict-aliasing"), marks=pytest.mark.long),
    pytest.param("gcc", SANITIZERS, marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def alone(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a program with one model prints, compiled with as few assumptions as possible."""
    folder = tmp_path_factory.mktemp("alone")
    flags = ("-O1", "-fno-strict-aliasing")
    return {name: printed(compiled(folder / name, [model], COMPILERS["gcc"], flags)) for name, model in models.items()}


@pytest.mark.parametrize(("name", "flags"), BUILDS)
def test_two_models_in_one_program_train_as_each_does_alone(
    models: dict[str, Model], alone: dict[str, list[str]], tmp_path: Path, name: str, flags: tuple[str, ...]
) -> None:
    """Whatever the compiler may assume of types, and across files."""
    if shutil.which(COMPILERS[name][1]) is None or (name == "clang" and "-flto" in flags and not lld()):
        pytest.skip(f"no {COMPILERS[name][1]} that links this")
    both = compiled(tmp_path / "both", list(models.values()), COMPILERS[name], flags)
    assert printed(both) == [*alone["first"], *alone["second"]]
    assert len(alone["first"]) == 1


def test_two_models_in_a_program_in_the_oldest_cxx_that_is_supported(
    models: dict[str, Model], alone: dict[str, list[str]], tmp_path: Path
) -> None:
    both = compiled(tmp_path / "both", list(models.values()), COMPILERS["gcc"], ("-O2",), "c++11")
    assert printed(both) == [*alone["first"], *alone["second"]]


@pytest.mark.parametrize("standard", ["c++11", "c++17"])
def test_two_models_train_on_an_emulated_core_as_on_this_machine(
    models: dict[str, Model], alone: dict[str, list[str]], tmp_path: Path, standard: str
) -> None:
    board, project = BOARDS["qemu-m7"], tmp_path / "project"
    assert board.build is not None
    write_project(models["first"].plan, project, board_ram_bytes=1 << 20)
    core = (f"-mcpu={board.build.cpu}", "-mthumb", "-ffunction-sections", "-fdata-sections", "-O2")
    start = project / "boards/common/qemu"
    link = (
        "-nostartfiles",
        "--specs=nano.specs",
        "-Wl,--gc-sections",
        f"-T{start / 'link.ld'}",
        str(start / "startup.c"),
    )
    symbols = [f"-Wl,--defsym={name}={address}" for name, address in board.build.symbols.items()]
    tools = ("arm-none-eabi-gcc", "arm-none-eabi-g++")
    both = compiled(
        tmp_path / "both",
        list(models.values()),
        tools,
        (*core, "-fno-exceptions", "-fno-rtti"),
        standard,
        (*link, *symbols),
    )
    assert board.build.machine
    command = [emulator(), "-M", board.build.machine, "-display", "none", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(both)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert (done.stdout + done.stderr).splitlines() == [*alone["first"], *alone["second"]]


def lld() -> bool:
    """Whether clang can link what it optimises as a whole."""
    done = subprocess.run(
        ["clang", "-flto", "-xc", "-", "-o", os.devnull], input="int main(void){return 0;}", text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    return done.returncode == 0


def test_every_external_symbol_has_the_prefix(models: dict[str, Model], tmp_path: Path) -> None:
    for prefix, model in models.items():
        for file in model.sources.glob("*.c"):
            target = tmp_path / f"{file.stem}.o"
            subprocess.run(
                ["cc", "-std=c11", f"-I{RUNTIME / 'include'}", "-c", str(file), "-o", str(target)], check=True
            )
            listed = subprocess.run(["nm", "-g", "--defined-only", str(target)], check=True, capture_output=True)
            names = [line.split()[-1] for line in listed.stdout.decode().splitlines()]
            assert names and all(name.startswith(f"{prefix}_") for name in names)
        header = (model.sources / f"{prefix}_model.h").read_text()
        defined = [line.split()[1] for line in header.splitlines() if line.startswith("#define")]
        assert len(defined) > 5 and all(name.startswith(f"{prefix.upper()}_") for name in defined)


def test_a_model_with_a_name_of_its_own_is_served(models: dict[str, Model], tmp_path: Path) -> None:
    with connect(Compiled.read(models["second"].folder), "host", tmp_path / "flash.bin") as session:
        assert session.hello.digest == models["second"].plan.digest


@pytest.mark.parametrize("name", ["", "2nd", "Faces", "a__b", "a_", "mdy_faces", "a-b", "a b", "../x", "ä", "a" * 40])
def test_a_name_that_c_cannot_have_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    command = ["compile", str(DIGITNET), "--data", "digits", "--name", name, "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DataError), result.output
    assert not (tmp_path / "out").exists()


def careless(project: Path) -> None:
    """An application that its author's compiler warns of."""
    main = project / "app" / "main.c"
    main.write_text(main.read_text().replace("int main(void)\n{", "int main(void)\n{\n    int forgotten = 3.7;"))
    assert "forgotten" in main.read_text()


@pytest.mark.parametrize(("target", "builder"), [("host", "make"), ("qemu-m7", "make"), ("qemu-m7", "platformio")])
def test_warnings_are_errors_in_generated_files_and_not_in_the_application(
    models: dict[str, Model], tmp_path: Path, target: str, builder: str
) -> None:
    plan = models["first"].plan
    project = tmp_path / "project"
    write_project(plan, project)
    careless(project)
    build(plan, project, target, builder)
    model = project / "src" / "mdy_model.c"
    model.write_text(model.read_text() + "\nstatic int unused;\n")
    with pytest.raises(ToolchainError, match="unused"):
        build(plan, project, target, builder)


def compiled_kernels(build: Path) -> set[str]:
    """<family>/<file> of every kernel that was compiled there."""
    objects = (path.relative_to(build).as_posix() for path in build.rglob("*.o"))
    return {name.partition("/kernels/")[2].removesuffix(".o") for name in objects if "/kernels/" in name}


def test_cmake_takes_the_runtime_as_a_target(
    models: dict[str, Model], alone: dict[str, list[str]], tmp_path: Path
) -> None:
    """With the definitions that the model needs, on the application too; the family of kernels is an option."""
    model, cmake = models["first"], program("cmake")
    shutil.copytree(model.folder / "project" / "runtime", tmp_path / "medyate")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(own C CXX)\nset(MDY_KERNELS dsp)\nadd_subdirectory(medyate)\n"
        f"add_executable(own {SOURCE} {model.sources / 'first_model.c'} {model.sources / 'first_memory.c'} "
        "medyate/ports/emu/flash_emu.c)\n"
        f"target_include_directories(own PRIVATE {model.sources} medyate/ports/emu)\n"
        "target_compile_definitions(own PRIVATE WITH_FIRST)\nset_property(TARGET own PROPERTY CXX_STANDARD 17)\n"
        "target_link_libraries(own PRIVATE medyate_runtime)\n"
    )
    for command in ([cmake, "-S", ".", "-B", "build"], [cmake, "--build", "build"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert printed(tmp_path / "build" / "own") == alone["first"]
    assert compiled_kernels(tmp_path / "build") == set(kernel_files("dsp"))
    for family in ("ref", "mve"):
        subprocess.run([cmake, "-S", "medyate", "-B", family, f"-DMDY_KERNELS={family}"], cwd=tmp_path, check=True)
        subprocess.run([cmake, "--build", family], cwd=tmp_path, check=True, capture_output=True)
        assert compiled_kernels(tmp_path / family) == set(kernel_files(family))
