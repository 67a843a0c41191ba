# SPDX-License-Identifier: Apache-2.0
"""The packages in a PlatformIO project of the user's own: built, made again on a change, packed, tested."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from apps import INFERRED, TRAINED, in_qemu, taught
from conftest import REPOSITORY, Cli
from medyate.run.session import Digests, Training
from medyate.run.train import Compiled, connect_image
from medyate.scons_package import lay_out_scons
from tiny import compile_tiny, samples_of

TARGET = "qemu-m7"
PORT = ("boards/common/qemu/*.[ch]", "runtime/ports/emu/*.c", "src/flash_geometry.h")
"""What a project for an emulated board takes of `compile`'s beside the packages."""
INI = """[platformio]
platforms_dir = .pio/platforms
[env:qemu-m7]
platform = symlink://platform
board = qemu-m7
build_flags = -DMDY_LINK_OPEN=1
extra_scripts = pre:lib/medyate/regenerate.py
custom_medyate_model = net.pt2
custom_medyate_data = data.npz
custom_medyate_ram = {ram}
custom_medyate_options = --alpha 0.5 --kernels dsp
custom_medyate_kernels = dsp
test_framework = custom
custom_qemu_machine = mps2-an500
test_build_src = yes
"""
PLAIN = """[platformio]
platforms_dir = .pio/platforms
[env:qemu-m7]
platform = symlink://platform
board = qemu-m7
"""
TEST = """#include "mdy/mdy.h"
#include "mdy/port.h"
#include "mdy_model.h"

static mdy_t net;

int main(void)
{
    const mdy_config_t config = {.flash = mdy_port.flash, .schedule = {.rate_mult = 20000, .rate_exponent = -18}};
    mdy_result_t first = {0}, last = {0};
    if (mdy_init(&net, &mdy_model, &mdy_memory, &config) != MDY_OK) {
        return 1;
    }
    for (int step = 0; step < 20; step++) {
        for (uint32_t i = 0; i < MDY_MODEL_INPUT_BYTES; i++) {
            mdy_input(&net)[i] = (int8_t)(i * 3u);
        }
        if (mdy_train_step(&net, LABEL, step == 0 ? &first : &last) != MDY_OK) {
            return 2;
        }
    }
    return mdy_end_epoch(&net) == MDY_OK && last.loss < first.loss ? 0 : 3;
}
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    lay_out_scons(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_tiny(tmp_path_factory.mktemp("tiny"), TARGET, flash=None)


def pio(core: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """PlatformIO without a network that it could use."""
    environment = {
        **os.environ,
        "PLATFORMIO_CORE_DIR": str(core),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        "PYTHONPATH": str(REPOSITORY / "compiler"),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "platformio", *map(str, arguments)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def project_of(tiny: Compiled, folder: Path, run_cli: Cli) -> Path:
    """A user's project with the runtime in lib/, a board, an application, and a network to compile."""
    made = tiny.folder / "project"
    assert run_cli("package", "--for", "platformio", "-o", folder / "lib").code == 0
    for name in ("platform", "boards"):
        shutil.copytree(made / name, folder / name)
    (folder / "src").mkdir()
    for pattern in PORT:
        for file in made.glob(pattern):
            shutil.copy(file, folder / "src" / file.name)
    shutil.copy(made / "app" / "main.c", folder / "src" / "main.c")
    shutil.copy(tiny.folder.parent / "tiny.pt2", folder / "net.pt2")
    shutil.copy(tiny.folder.parent / "data.npz", folder / "data.npz")
    (folder / "platformio.ini").write_text(INI.format(ram="16KiB"))
    return folder


def trained(image: Path, tiny: Compiled, digest: int, flash: Path) -> Digests:
    samples = samples_of(tiny)
    with connect_image(image, TARGET, digest, flash) as session:
        session.begin(Training(0.02, 1, 8, seed=3))
        for sample, label in zip(samples.x[:8], samples.y[:8].tolist(), strict=True):
            session.train(sample, label)
        session.commit()
        return session.digests()


def test_a_project_of_the_users_own_is_built_again_when_its_network_or_data_change(
    tiny: Compiled, core: Path, tmp_path: Path, run_cli: Cli
) -> None:
    own = project_of(tiny, tmp_path / "own", run_cli)
    image, model = own / ".pio/build/qemu-m7/firmware.elf", own / ".pio/medyate/mdy"

    def built() -> bool:
        """Whether the network was compiled for it."""
        done = pio(core, "run", "-d", own, "-e", TARGET)
        assert done.returncode == 0, done.stdout + done.stderr
        return "medyate: compiling" in done.stdout

    assert built()
    digest = int(Compiled.read(model).model["digest"])
    options = ("--ram", "16KiB", "--alpha", 0.5, "--target", TARGET, "--builder", "make")
    assert run_cli("compile", own / "net.pt2", "--data", own / "data.npz", *options, "-o", tmp_path / "alone").code == 0
    alone = Compiled.read(tmp_path / "alone")
    assert digest == alone.model["digest"]
    expected = trained(alone.image, tiny, digest, tmp_path / "alone.bin")
    assert trained(image, tiny, digest, tmp_path / "own.bin") == expected
    assert not built()
    (own / "platformio.ini").write_text(INI.format(ram="20KiB"))
    assert built()
    assert int(Compiled.read(model).model["digest"]) != digest
    data = own / "data.npz"
    content = data.read_bytes()
    data.write_bytes(content + b"\0")
    assert built()
    data.write_bytes(content)
    (own / "net.pt2").write_bytes(b"no network")
    done = pio(core, "run", "-d", own, "-e", TARGET)
    assert done.returncode != 0
    assert "net.pt2" in done.stderr


def test_pio_test_runs_on_an_emulated_board(tiny: Compiled, core: Path, tmp_path: Path, run_cli: Cli) -> None:
    own = project_of(tiny, tmp_path / "own", run_cli)
    (own / "src" / "main.c").unlink()
    for name, label in (("learns", "1u"), ("has_no_class", "99u")):
        (own / "test" / f"test_{name}").mkdir(parents=True)
        (own / "test" / f"test_{name}" / "main.c").write_text(TEST.replace("LABEL", label))
    shutil.copy(own / "lib/medyate/test_custom_runner.py", own / "test")
    done = pio(core, "test", "-d", own, "-e", TARGET)
    assert done.returncode != 0, done.stdout
    said = done.stdout + done.stderr
    outcomes = dict(re.findall(rf"{TARGET}:(\w+) \[(\w+)\]", said))
    assert outcomes == {"test_learns": "PASSED", "test_has_no_class": "FAILED"}
    assert "status 2" in said


@pytest.mark.parametrize("app", ["learn_by_button", "replay"])
def test_the_examples_are_programs(app: str, tiny: Compiled, core: Path, tmp_path: Path, run_cli: Cli) -> None:
    """With libraries that are there already, nothing is compiled."""
    own = project_of(tiny, tmp_path / "own", run_cli)
    assert run_cli("package", tiny.folder, "--for", "platformio", "-o", own / "lib").code == 0
    (own / "platformio.ini").write_text(PLAIN)
    (own / "src" / "main.c").unlink()
    for file in (own / "lib" / "mdy_model" / "examples" / app / "src").iterdir():
        shutil.copy(file, own / "src" / file.name)
    done = pio(core, "run", "-d", own, "-e", TARGET)
    assert done.returncode == 0, done.stdout + done.stderr
    samples = samples_of(tiny)
    turns = taught(samples.x[:4], samples.y[:4].tolist(), burst=1, pause=1)
    events = [e.event for e in in_qemu(own / ".pio/build/qemu-m7/firmware.elf", TARGET, tmp_path / "run", turns)]
    assert events.count(TRAINED) == 4
    assert events.count(INFERRED) == (4 if app == "learn_by_button" else 8)


@pytest.mark.parametrize("part", ["medyate", "mdy_model"])
def test_the_packages_can_be_packed(part: str, tiny: Compiled, core: Path, tmp_path: Path, run_cli: Cli) -> None:
    assert run_cli("package", tiny.folder, "--for", "platformio", "-o", tmp_path).code == 0
    done = pio(core, "pkg", "pack", tmp_path / part, "-o", tmp_path / "packed.tar.gz")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(tmp_path / "packed.tar.gz") as archive:
        names = archive.getnames()
    assert "library.json" in names
    assert ("include/mdy/mdy.h" if part == "medyate" else "src/mdy_model.c") in names
