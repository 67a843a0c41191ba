# SPDX-License-Identifier: Apache-2.0
"""The Zephyr module and the ESP-IDF component, built with stand-ins of both systems (tests/systems) for this machine.

The stand-ins have the documented signatures and commands. Neither real tree is here: what they do beyond that is not
tested.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from apps import COMMITTED, Turn, looked_at, on_host, taught
from medyate.build.package import read_model, write_packages
from medyate.run.train import Compiled
from programs import program
from tiny import compile_tiny, samples_of

SYSTEMS = Path(__file__).parents[1] / "systems"
STRICT = "-O2 -Wall -Wextra -Werror"
KCONFIG = re.compile(r"^config (\w+)\n\t(bool|int|string) .*?\n\tdefault (\S+)", re.MULTILINE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The application as `compile` makes it, with as much flash as the stand-ins have."""
    return compile_tiny(tmp_path_factory.mktemp("alone"), head_start="keep", app="learn_by_button")


def configured(kconfig: Path) -> list[str]:
    """The symbols that Kconfig would set, with those that Zephyr has of the board."""
    found = {name: "1" if default == "y" else default for name, _, default in KCONFIG.findall(kconfig.read_text())}
    assert set(found) == {
        "MEDYATE_PORT", "MEDYATE_SECTOR_BYTES", "MEDYATE_UNIT_BYTES", "MEDYATE_LINK_BUFFER_BYTES"
    }  # fmt: skip
    return ["CONFIG_MEDYATE=1", *(f"CONFIG_{name}={value}" for name, value in found.items())]


def built(kind: str, model: Compiled, folder: Path) -> Path:
    """The example of a package."""
    write_packages(kind, folder / "packages", read_model(model.folder))
    runtime, own = folder / "packages" / "medyate", folder / "packages" / "mdy_model"
    options, environment = [], dict(os.environ)
    if kind == "zephyr":
        config = [*configured(runtime / "zephyr" / "Kconfig"), "CONFIG_SYS_CLOCK_HW_CYCLES_PER_SEC=1000000"]
        options = [f"-DEXTRA_ZEPHYR_MODULES={runtime};{own}", f"-DMEDYATE_CONFIG={';'.join(config)}"]
        options.append(f"-DZephyr_DIR={SYSTEMS / 'zephyr'}")
        source = own / "samples" / "learn_by_button"
    else:
        environment["IDF_PATH"] = str(SYSTEMS / "espidf")
        source = own / "examples" / "learn_by_button"
    cmake = program("cmake")
    command = [cmake, "-S", str(source), "-B", str(folder / "build"), f"-DCMAKE_C_FLAGS={STRICT}", *options]
    for line in (command, [cmake, "--build", str(folder / "build")]):
        done = subprocess.run(line, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "app"


@pytest.mark.parametrize("kind", ["zephyr", "espidf"])
def test_the_example_learns_and_keeps_what_it_learned(kind: str, alone: Compiled, tmp_path: Path) -> None:
    image = built(kind, alone, tmp_path)
    samples = samples_of(alone)
    x, y = np.concatenate([samples.x] * 2), np.concatenate([samples.y] * 2).tolist()
    turns: list[Turn] = [*looked_at(x[:8]), *taught(x, y), *looked_at(x[:8])]
    events = on_host(image, tmp_path / "run", turns)
    assert [event.event for event in events].count(COMMITTED) == 2
    assert events == on_host(alone.image, tmp_path / "alone", turns)
    again = on_host(image, tmp_path / "run", looked_at(x))
    assert again == on_host(alone.image, tmp_path / "alone", looked_at(x))
    assert again != on_host(image, tmp_path / "untrained", looked_at(x))
