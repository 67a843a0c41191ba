# SPDX-License-Identifier: Apache-2.0
"""The manual in `mdy/mdy.h`: its application is compiled as it stands there, trains, commits and names what it sees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medyate import datasets
from medyate.assets import PORTABLE, assets, kernel_files
from medyate.ir import Quant
from medyate.run.held import find
from medyate.run.train import Compiled
from tiny import compile_tiny, samples_of

RUNTIME = assets() / "runtime_c"
WARNINGS = tuple(f"-W{name}" for name in ("all", "extra", "pedantic", "conversion", "shadow", "error"))
C = {"gcc": ("gcc", "-std=c11"), "clang": ("clang", "-std=c11")}
CXX = {f"{name} {year}": (name, f"-std=c++{year}") for name in ("g++", "clang++") for year in (11, 17)}
CAMERA = """
#include <stdio.h>
#ifndef __cplusplus
int camera(uint8_t *pixels, int *label);
void show(const char *text);
#endif
int camera(uint8_t *pixels, int *label)
{
    uint8_t told = 0;
    if (fread(&told, 1, 1, stdin) != 1) {
        return 0;
    }
    *label = told == 255 ? -1 : told;
    return fread(pixels, 1, MDY_MODEL_INPUT_BYTES, stdin) == MDY_MODEL_INPUT_BYTES;
}
void show(const char *text) { (void)puts(text); }
"""


def example() -> str:
    """The application in the manual."""
    manual = (RUNTIME / "include" / "mdy" / "mdy.h").read_text().split("*/")[1]
    lines = [line[3:] for line in manual.splitlines() if line == " *" or line.startswith(" *   ")]
    text = "\n".join(line[2:] for line in lines)
    return text[text.index("#include") :]


def flags(compiled: Compiled) -> list[str]:
    project = compiled.folder / "project"
    return [f"-I{project / 'src'}", f"-I{RUNTIME / 'include'}", f"-I{RUNTIME / 'ports' / 'emu'}"]


@pytest.mark.parametrize("name", [*C, *CXX])
def test_the_manuals_application_trains_and_commits(name: str, tiny_host: Compiled, tmp_path: Path) -> None:
    command = (C | CXX)[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    language = "c" if name in C else "c++"
    (tmp_path / "app").write_text(example().replace("static mdy_t net;", CAMERA + "static mdy_t net;"))
    subprocess.run(
        [*command, *WARNINGS, *flags(tiny_host), f"-x{language}", "-c", "app", "-o", "app.o"], cwd=tmp_path, check=True
    )
    sources = [*(RUNTIME / "src").rglob("*.c"), *(RUNTIME / "kernels" / file for file in kernel_files(PORTABLE))]
    sources = [file for file in sources if file.name not in ("serve.c", "link.c")]
    sources += [*(tiny_host.folder / "project" / "src").glob("*.c"), *(RUNTIME / "ports").rglob("*.c")]
    c = C["clang" if "clang" in name else "gcc"]
    subprocess.run(
        [*c, "-O1", *flags(tiny_host), *map(str, sources), "app.o", "-o", "program"], cwd=tmp_path, check=True
    )
    dataset = datasets.load(str(tiny_host.folder.parent / "data.npz"))
    shown = b"".join(
        bytes([label]) + image.tobytes() for image, label in zip(dataset.x_train, dataset.y_train, strict=True)
    )
    asked = b"".join(b"\xff" + image.tobytes() for image in dataset.x_test)
    environment = {**os.environ, "MDY_FLASH_FILE": str(tmp_path / "flash.bin")}
    run = subprocess.run(
        [tmp_path / "program"], input=shown * 3 + asked, env=environment, capture_output=True, check=False
    )
    assert run.returncode == 0
    named = run.stdout.decode().split()
    assert len(named) == len(dataset.x_test)
    assert set(named) <= set(dataset.classes)
    held = find((tmp_path / "flash.bin").read_bytes())
    assert max(one.generation for one in held) == 3 * len(dataset.x_train) // 32
    again = subprocess.run([tmp_path / "program"], input=asked, env=environment, capture_output=True, check=False)
    assert again.stdout == run.stdout  # what was learned is in flash


def test_the_header_says_what_python_knows(tiny_host: Compiled) -> None:
    header = (tiny_host.folder / "project" / "src" / "mdy_model.h").read_text()
    table = re.search(r"mdy_from_pixel\[256\] = \{(.*?)\}", header, re.DOTALL)
    assert table is not None
    values = np.array([int(value) for value in table[1].split(",") if value.strip()])
    gain, offset = tiny_host.model["pixels"]
    pixels = np.arange(256)
    assert np.array_equal(values, datasets.Scaling(gain, offset).int8(pixels, Quant(*tiny_host.model["input"])))
    assert re.findall(r'^    "(.*)",$', header, re.MULTILINE) == tiny_host.model["classes"]
    assert f"MDY_MODEL_EPOCH_STEPS {len(samples_of(tiny_host).x)}u" in header
    assert f"MDY_MODEL_STEP_INSTRUCTIONS {tiny_host.plan['step_instructions_bound']}u" in header


def test_the_table_of_pixels_is_linked_only_where_it_is_used(tiny_host: Compiled, tmp_path: Path) -> None:
    source = tiny_host.folder / "project" / "src" / "mdy_model.c"
    for level in ("-O1", "-Os"):
        target = tmp_path / "model.o"
        subprocess.run(["cc", "-std=c11", level, *flags(tiny_host), "-c", str(source), "-o", str(target)], check=True)
        listed = subprocess.run(["nm", str(target)], check=True, capture_output=True, text=True).stdout
        assert "from_pixel" not in listed and "class_names" not in listed


def test_a_step_without_a_rate_is_refused(tiny_host: Compiled, tmp_path: Path) -> None:
    """A schedule that was forgotten would train nothing, in silence; inference needs none."""
    program = tmp_path / "program.c"
    program.write_text(
        '#include "mdy/mdy.h"\n#include "mdy/port.h"\n#include "mdy_model.h"\nstatic mdy_t net;\n'
        "int main(void)\n{\n    mdy_config_t config = MDY_DEFAULT_CONFIG(mdy_port.flash);\n    mdy_result_t r;\n"
        "    config.schedule.rate_mult = 0;\n"
        "    if (mdy_init(&net, &mdy_model, &mdy_memory, &config) != MDY_OK) return 1;\n"
        "    if (mdy_infer(&net, 0, &r) != MDY_OK) return 2;\n"
        "    return mdy_train_step(&net, 0, &r) == MDY_ARGUMENT ? 0 : 3;\n}\n"
    )
    sources = [*(RUNTIME / "src").rglob("*.c"), *(RUNTIME / "kernels" / file for file in kernel_files(PORTABLE))]
    sources += [*(tiny_host.folder / "project" / "src").glob("*.c"), *(RUNTIME / "ports").rglob("*.c"), program]
    command = ["cc", "-std=c11", *flags(tiny_host), *map(str, sources), "-o", str(tmp_path / "program")]
    subprocess.run(command, check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


def test_weights_in_ram_need_no_banks(tmp_path: Path) -> None:
    header = (compile_tiny(tmp_path, weights="ram").folder / "project" / "src" / "mdy_model.h").read_text()
    assert "NULL: the weights are in RAM" in header
