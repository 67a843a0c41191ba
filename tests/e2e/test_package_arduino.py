# SPDX-License-Identifier: Apache-2.0
"""The Arduino libraries and their sketches, with a core over a line (tests/arduino), here and on QEMU."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from apps import COMMITTED, INFERRED, NO_LABEL, REFUSED, Shown, Turn, in_qemu_raw, looked_at, on_host, on_host_raw
from conftest import Cli
from medyate.boards import BOARDS
from medyate.build.package import read_model, write_packages
from medyate.build.project import target_defines
from medyate.run.session import Digests, Training
from medyate.run.train import Compiled, connect_image
from tiny import compile_tiny, samples_of

CORE = Path(__file__).parents[1] / "arduino"
SKETCHES = ("Infer", "LearnByButton", "SerialTrainer")
STRICT = ("-Wall", "-Wextra", "-Werror")
BUTTONS = 2
"""Of the sketch: pins of the first classes."""
QEMU = BOARDS["qemu-m7"]
CONSTRUCTORS = """    .init_array :
    {
        __init_array_start = .;
        KEEP(*(SORT(.init_array.*) .init_array))
        __init_array_end = .;
    } > FLASH
"""
"""What the linker script of an emulated board, which is made for C, lacks for C++."""


@dataclass(frozen=True)
class Kit:
    """A compiled model, its libraries, and how a C or C++ file is compiled for a target."""

    target: str
    model: Compiled
    libraries: Path

    @property
    def flags(self) -> list[str]:
        project = self.model.folder / "project"
        folders = [*self.libraries.glob("*/src"), project / "src", CORE, project / "boards/common/qemu"]
        flags = ["-O2", "-DMDY_LINK_OPEN=1", *(f"-I{folder}" for folder in folders)]
        if self.target != "host":
            assert QEMU.build is not None
            flags += [f"-mcpu={QEMU.build.cpu}", "-mthumb", "-ffunction-sections", "-fdata-sections"]
            flags += [f"-D{define}" for define in target_defines(QEMU)]
        return flags

    @property
    def tools(self) -> str:
        return "" if self.target == "host" else "arm-none-eabi-"

    def objects(self, folder: Path) -> list[str]:
        """The libraries and the port, in C."""
        project = self.model.folder / "project"
        port = "runtime/ports/host/*.c" if self.target == "host" else "boards/common/qemu/*.c"
        sources = [*self.libraries.glob("*/src/**/*.c"), *project.glob(port)]
        folder.mkdir()
        command = [f"{self.tools}gcc", "-std=gnu11", *self.flags, "-c", *map(str, sources)]
        subprocess.run(command, cwd=folder, check=True)
        return [str(file) for file in folder.glob("*.o")]

    def sketch(self, name: str, standard: str, objects: list[str], folder: Path) -> Path:
        """The program of a sketch: its .ino is C++, the files beside it are what they are."""
        folder.mkdir()
        source = self.libraries / "mdy_model" / "examples" / name
        (folder / "sketch.cpp").write_text(f"#include <Arduino.h>\n{(source / f'{name}.ino').read_text()}")
        lean = ("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics") if self.target != "host" else ()
        flags = [*self.flags, f"-I{source}", *STRICT]
        command = [f"{self.tools}g++", f"-std={standard}", *lean, *flags, "-c", "sketch.cpp", str(CORE / "core.cpp")]
        subprocess.run(command, cwd=folder, check=True)
        own = list(map(str, source.glob("*.c")))
        if own:
            subprocess.run([f"{self.tools}gcc", "-std=gnu11", *flags, "-c", *own], cwd=folder, check=True)
        program = folder / "program"
        parts = [*map(str, folder.glob("*.o")), *objects]
        if self.target == "host":
            subprocess.run(["g++", *parts, "-o", str(program)], check=True)
        else:
            own = (self.model.folder / "project/boards/common/qemu/link.ld").read_text()
            script = folder / "link.ld"
            script.write_text(own.replace("    .ARM.exidx :", f"{CONSTRUCTORS}\n    .ARM.exidx :", 1))
            assert QEMU.build is not None
            symbols = [f"-Wl,--defsym={symbol}={at}" for symbol, at in QEMU.build.symbols.items()]
            link = ["-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-T", str(script), *symbols]
            command = ["arm-none-eabi-gcc", *self.flags, *link, *parts]
            subprocess.run([*command, "-o", str(program)], check=True)
        return program


@pytest.fixture(scope="module", params=["host", "qemu-m7"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    model = compile_tiny(folder, request.param, head_start="keep", ram_bytes=64 << 10)
    write_packages("arduino", folder / "libraries", read_model(model.folder))
    return Kit(request.param, model, folder / "libraries")


@pytest.fixture(scope="module")
def sketches(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Programs by sketch and standard of C++."""
    folder = tmp_path_factory.mktemp("sketches")
    objects = kit.objects(folder / "objects")
    return {
        (name, standard): kit.sketch(name, standard, objects, folder / f"{name}-{standard}")
        for name in SKETCHES
        for standard in ("c++11", "c++17")
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The same network with the same application, as `compile` makes it."""
    folder = tmp_path_factory.mktemp("alone")
    return compile_tiny(folder, head_start="keep", ram_bytes=64 << 10, app="learn_by_button")


def printed(kit: Kit, program: Path, folder: Path, line: bytes) -> str:
    run = on_host_raw(program, folder, line) if kit.target == "host" else in_qemu_raw(program, kit.target, folder, line)
    return run.decode()


STANDARDS = ("c++11", "c++17")


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_sketch_infers_as_the_program_does(
    standard: str, kit: Kit, sketches: dict[tuple[str, str], Path], alone: Compiled, tmp_path: Path
) -> None:
    x = samples_of(alone).x
    events = on_host(alone.image, tmp_path / "alone", looked_at(x))
    lines = [str(event.prediction) for event in events]
    assert len(set(lines)) > 1
    assert printed(kit, sketches["Infer", standard], tmp_path / "run", x.tobytes()).split() == lines


def quantised(readings: np.ndarray, model: Compiled) -> np.ndarray:
    """What the sketch makes of the readings, in its arithmetic."""
    gain, offset = (np.float32(part) for part in model.model["pixels"])
    scale, zero = np.float32(model.model["input"][0]), np.float32(model.model["input"][1])
    steps = (gain * (readings.astype(np.float32) * np.float32(255 / 1023)) + offset) / scale + zero
    return np.clip(np.trunc(steps + np.copysign(np.float32(0.5), steps)), -128, 127).astype(np.int8)


def said(event: Shown) -> list[str]:
    texts = {INFERRED: [str(event.prediction)], COMMITTED: ["kept"], REFUSED: ["refused:", str(event.status)]}
    return texts.get(event.event, [])


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_sketch_learns_by_button_as_the_program_does(
    standard: str, kit: Kit, sketches: dict[tuple[str, str], Path], alone: Compiled, tmp_path: Path
) -> None:
    random = np.random.default_rng(4)
    shape = tuple(alone.model["input_shape"])
    readings = random.integers(0, 1024, (160, *shape), np.uint16)
    labels = [at % BUTTONS if at < 80 and at % 5 else NO_LABEL for at in range(len(readings))]
    turns = [Turn(quantised(x, alone), label) for x, label in zip(readings, labels, strict=True)]
    events = on_host(alone.image, tmp_path / "alone", turns)
    assert [event.event for event in events].count(COMMITTED) == 2
    line = b""
    for reading, label in zip(readings, labels, strict=True):
        levels = b"\1" * BUTTONS if label == NO_LABEL else b"\1" * label + b"\0"
        line += reading.astype("<u2").tobytes() + levels
    words = printed(kit, sketches["LearnByButton", standard], tmp_path / "run", line).split()
    assert words == [word for event in events for word in said(event)]


def digests(image: Path, target: str, model: Compiled, flash: Path) -> Digests:
    samples = samples_of(model)
    with connect_image(image, target, int(model.model["digest"]), flash) as session:
        session.begin(Training(0.02, 2, 8, seed=3))
        for sample, label in zip(samples.x[:16], samples.y[:16].tolist(), strict=True):
            session.train(sample, label)
        session.commit()
        return session.digests()


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_sketch_is_trained_by_a_host_as_the_program_is(
    standard: str, kit: Kit, sketches: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    right = digests(kit.model.image, kit.target, kit.model, tmp_path / "alone.bin")
    assert digests(sketches["SerialTrainer", standard], kit.target, kit.model, tmp_path / "sketch.bin") == right


def test_a_sketch_whose_weights_are_in_ram_needs_no_flash(tmp_path: Path) -> None:
    model = compile_tiny(tmp_path, head_start="keep", weights="ram", ram_bytes=64 << 10)
    write_packages("arduino", tmp_path / "libraries", read_model(model.folder))
    kit = Kit("host", model, tmp_path / "libraries")
    program = kit.sketch("Infer", "c++11", kit.objects(tmp_path / "objects"), tmp_path / "Infer")
    x = samples_of(model).x[:4]
    assert len(printed(kit, program, tmp_path / "run", x.tobytes()).split()) == len(x)


def test_models_that_need_different_runtimes_are_refused(tmp_path: Path, run_cli: Cli) -> None:
    for bits in (8, 16):
        (tmp_path / str(bits)).mkdir()
        compile_tiny(tmp_path / str(bits), grad_bits=bits)
    libraries = tmp_path / "libraries"
    assert run_cli("package", tmp_path / "8" / "out", "--for", "arduino", "-o", libraries).code == 0
    (libraries / "mdy_model").rename(libraries / "faces_model")
    ended = run_cli("package", tmp_path / "16" / "out", "--for", "arduino", "-o", libraries)
    assert ended.code == 2
    assert "faces_model" in ended.err and "MDY_GRAD_BITS" in ended.err
    assert not (libraries / "mdy_model").exists()
