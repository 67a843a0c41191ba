# SPDX-License-Identifier: Apache-2.0
"""What several test files share: the command line in this process, small data, one compiled network."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from medyate import cli, datasets
from medyate.plan.budget import Limits
from medyate.run.train import Compiled, int8_samples
from medyate.stages import Options, compile_model
from shared_files import Samples
from tiny import compile_tiny

REPOSITORY = Path(__file__).resolve().parent.parent
DIGITNET = REPOSITORY / "models" / "digitnet" / "digitnet.onnx"

torch.set_num_threads(1)  # the networks are tiny: more threads only wait for each other


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stages and objects are made once, wherever several tests need the same.

    Where ccache is, it stands before the host's compilers: the runtime is the same in all networks' projects.
    The compiler for Cortex-M is called as it is: ccache would lose the call graph that it writes.
    """
    ccache = shutil.which("ccache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDYATE_CACHE", str(REPOSITORY / "build" / "stages"))
        if ccache is not None:
            folder = tmp_path_factory.mktemp("ccache")
            for name in filter(shutil.which, ("cc", "gcc", "clang")):
                (folder / name).symlink_to(ccache)
            patched.setenv("PATH", str(folder), os.pathsep)
            patched.setenv("CCACHE_DIR", str(REPOSITORY / "build" / "ccache"))
            patched.setenv("CCACHE_NOHASHDIR", "1")
        yield


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """run_cli("plan", model, ...): `medyate plan model ...` in this process."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["medyate", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz with 12 training and 4 test images of each digit."""
    digits = datasets.load("digits")
    parts = {}
    for part, count in (("train", 12), ("test", 4)):
        x, y = getattr(digits, f"x_{part}"), getattr(digits, f"y_{part}")
        chosen = np.concatenate([np.flatnonzero(y == label)[:count] for label in range(10)])
        parts |= {f"x_{part}": x[chosen], f"y_{part}": y[chosen]}
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, **parts)
    return path


@pytest.fixture(scope="session")
def digitnet_host(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The demonstration network for 'digits' with a new head, 64 KiB, compiled for this machine."""
    out = tmp_path_factory.mktemp("digitnet")
    compile_model(DIGITNET, datasets.load("digits"), Options("host", Limits(64 << 10), rank_epochs=1), out)
    return Compiled.read(out)


@pytest.fixture(scope="session")
def tiny_host(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A network whose commit is some 100 operations of a flash of unequal sectors, compiled for this machine."""
    return compile_tiny(tmp_path_factory.mktemp("tiny_host"))


@pytest.fixture(scope="session")
def tiny_m7(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The same network for an emulated Cortex-M7."""
    return compile_tiny(tmp_path_factory.mktemp("tiny_m7"), "qemu-m7")


@pytest.fixture(scope="session")
def samples(digitnet_host: Compiled, small_digits: Path) -> Samples:
    dataset = datasets.load(str(small_digits))
    order = datasets.epoch_order(0, 0, len(dataset.x_train))
    x, _ = int8_samples(digitnet_host, dataset)
    return Samples(x[order], dataset.y_train[order])
