# SPDX-License-Identifier: Apache-2.0
"""Host and emulated boards compute the same bits, whatever compiler and optimisation."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medyate.boards import BOARDS, HERE
from medyate.datasets import Dataset
from medyate.datasets import load as load_data
from medyate.plan.budget import Limits
from medyate.run.session import Digests, Training
from medyate.run.train import Compiled, RunOptions, connect, int8_samples, measure, run
from medyate.sample.policy import draw_selection
from medyate.stages import Options, compile_model
from shared_files import ROOT, field_digits, shared

STEPS = 64
TRAINING = Training(0.02, 8, STEPS, flip=True, shift=2, smoothing=0.1, seed=3)


@dataclass(frozen=True)
class Trace:
    """What must be the same everywhere after the same steps and one commit."""

    losses: tuple[float, ...]
    logits: tuple[int, ...]
    selected: tuple[int, ...]
    norms: tuple[int, ...]
    before: Digests
    after: Digests


def digitnet(folder: Path, target: str, batch: int = 1) -> Compiled:
    """The demonstration's network, as the demonstration compiles it."""
    options = Options(target, Limits(24 * 1024, batch=batch), head="keep", rank_epochs=1)
    model = ROOT / "models" / "digitnet" / "digitnet.onnx"
    compile_model(model, field_digits(), options, folder)
    return Compiled.read(folder)


def trace(compiled: Compiled, dataset: Dataset, flash: Path, steps: int = STEPS) -> Trace:
    """Trains `steps` samples, commits, infers once."""
    samples, _ = int8_samples(compiled, dataset)
    on = "host" if compiled.model["target"] == "host" else "qemu"
    with connect(compiled, on, flash, count=False) as session:
        session.begin(dataclasses.replace(TRAINING, epoch_samples=steps))
        losses = tuple(session.train(samples[i], int(dataset.y_train[i])).loss for i in range(steps))
        before = session.digests()
        session.commit()
        session.infer(samples[0])
        selected = tuple(int(c) for c in np.flatnonzero(session.selection()))
        return Trace(losses, tuple(session.logits()), selected, tuple(session.norms()), before, session.digests())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    """digitnet for every target."""
    return {target: digitnet(tmp_path_factory.mktemp(target), target) for target in HERE}


@pytest.fixture(scope="module")
def host_trace(images: dict[str, Compiled], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return trace(images["host"], field_digits(), tmp_path_factory.mktemp("flash") / "host.bin")


@pytest.mark.parametrize("target", HERE[1:])
def test_an_emulated_board_ends_like_the_host(
    images: dict[str, Compiled], host_trace: Trace, target: str, tmp_path: Path
) -> None:
    assert trace(images[target], field_digits(), tmp_path / "flash.bin") == host_trace
    assert host_trace.before.deltas != 0
    assert host_trace.losses[0] != host_trace.losses[-1]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_every_compiler_and_level_gives_the_same_bits(
    images: dict[str, Compiled], host_trace: Trace, compiler: str, level: str, tmp_path: Path
) -> None:
    image = rebuilt(images["host"], tmp_path, compiler, level)
    assert trace(image, field_digits(), tmp_path / "flash.bin") == host_trace


def test_sanitizers_find_nothing_in_a_training_with_a_commit(
    images: dict[str, Compiled], host_trace: Trace, tmp_path: Path
) -> None:
    # The sanitizers rewrite shifts so that gcc warns of conversions that it added itself.
    flags = "-O1 -g -Wno-error -fsanitize=address,undefined -fno-sanitize-recover=all"
    image = rebuilt(images["host"], tmp_path, "gcc", flags)
    assert trace(image, field_digits(), tmp_path / "flash.bin") == host_trace


def rebuilt(compiled: Compiled, folder: Path, compiler: str, flags: str) -> Compiled:
    """The same project built by another compiler; the warnings stay errors."""
    project = compiled.folder / "project"
    command = ["make", "-s", "-j2", "-C", str(project), f"BUILD={folder / 'build'}", "host", f"CC={compiler}"]
    subprocess.run([*command, f"CFLAGS={flags}", f"LDFLAGS={flags}"], check=True)
    image = os.path.relpath(folder / "build" / "host" / "firmware", compiled.folder)
    return dataclasses.replace(compiled, model={**compiled.model, "image": image})


@pytest.mark.parametrize("target", HERE[1:])
def test_no_floating_point_helper_is_linked(images: dict[str, Compiled], target: str) -> None:
    """Built without FPU, any float would call one."""
    symbols = subprocess.run(
        ["arm-none-eabi-nm", str(images[target].image)], check=True, capture_output=True, text=True
    ).stdout
    assert "mdy_train_step" in symbols
    assert not re.findall(r"__aeabi_[fd]\w+|__aeabi_[iul]+2[fd]|__\w+[sd]f[23]?\b", symbols)


def test_vectors_hold_integers_only(images: dict[str, Compiled]) -> None:
    """Where gcc may use their registers, every object is of a core without floats: the assembler refuses them."""
    (target,) = (name for name in HERE[1:] if BOARDS[name].build.float_abi == "hard")
    objects = sorted(images[target].image.parent.rglob("*.o"))
    assert any("kernels/mve" in str(path) for path in objects)
    for path in objects:
        command = ["arm-none-eabi-readelf", "-A", str(path)]
        facts = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "Tag_MVE_arch: MVE Integer only" in facts and "Tag_FP_arch" not in facts, path


@pytest.mark.parametrize("target", HERE[1:])
def test_memory_marks_equal_the_plan(images: dict[str, Compiled], target: str) -> None:
    samples, _ = int8_samples(images[target], field_digits())
    marks = measure(images[target], "qemu", samples[0])
    plan = images[target].plan
    assert (marks.planned, marks.epoch, marks.state) == (
        plan["planned_bytes"],
        plan["epoch_bytes"],
        plan["state_bytes"],
    )
    assert 0 < marks.stack <= images[target].model["stack_bound_bytes"] <= plan["stack_reserved_bytes"]
    assert marks.static - plan["arena_bytes"] <= plan["static_reserved_bytes"]
    assert marks.static + marks.stack <= plan["ram_limit_bytes"]


def test_the_device_draws_what_python_draws_from_its_norms(images: dict[str, Compiled], tmp_path: Path) -> None:
    compiled, dataset = images["host"], field_digits()
    samples, _ = int8_samples(compiled, dataset)
    costs = [c["record_bytes"] for c in compiled.plan["candidates"] for _ in range(c["channels"])]
    budget = compiled.plan["epoch_bytes"]
    with connect(compiled, "host", tmp_path / "flash.bin") as session:
        session.begin(TRAINING)
        for epoch in range(4):
            drawn = draw_selection([int(n) for n in session.norms()], costs, budget, TRAINING.seed, epoch)
            assert drawn == tuple(np.flatnonzero(session.selection()))
            for i in range(8):
                session.train(samples[8 * epoch + i], int(dataset.y_train[8 * epoch + i]))
            session.commit()


def test_generated_sources_are_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDYATE_CACHE", "off")
    first, second = digitnet(tmp_path / "a", "host"), digitnet(tmp_path / "b", "host")
    for name in ("mdy_model.c", "mdy_model.h", "mdy_weights.h"):
        texts = [(c.folder / "project" / "src" / name).read_bytes() for c in (first, second)]
        assert texts[0] == texts[1]
        assert str(tmp_path).encode() not in texts[0]


def real_network(folder: Path, target: str, ranking: Path | None) -> tuple[Compiled, Dataset]:
    """MobileNetV2-w0.35 at 128 x 128 on flowers17, in 320 KiB with at least the papers' small budget."""
    model = shared("models/derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx")
    dataset = load_data(str(shared("data/flowers17")))
    limits = Limits(320 * 1024, min_elements=27946)
    plan, _ = compile_model(model, dataset, Options(target, limits, rank_epochs=1, ranking=ranking), folder)
    assert plan.row.b_mem_elements >= 27946
    return Compiled.read(folder), dataset


@pytest.fixture(scope="module")
def real_host(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compiled, Dataset]:
    return real_network(tmp_path_factory.mktemp("real-host"), "host", None)


@pytest.mark.long
def test_the_real_network_ends_alike_on_host_and_cortex_m7(real_host: tuple[Compiled, Dataset], tmp_path: Path) -> None:
    compiled, dataset = real_host
    on_m7, _ = real_network(tmp_path / "m7", "qemu-m7", compiled.folder / "04_ranking.json")
    there = trace(on_m7, dataset, tmp_path / "m7.bin")
    assert there == trace(compiled, dataset, tmp_path / "host.bin")


@pytest.mark.long
def test_the_real_network_learns_flowers_in_one_short_epoch(
    real_host: tuple[Compiled, Dataset], tmp_path: Path
) -> None:
    """The full training is `make study`; here one epoch of 600 samples must leave chance (1/17) far behind."""
    compiled, dataset = real_host
    training = Training(0.0015, 1, 600, flip=True)
    options = RunOptions("host", training, tmp_path / "flash.bin", limit=600, measure=False)
    log = run(compiled, dataset, options, lambda _: None)
    assert log["accuracy_before"] < 0.1
    assert log["accuracy_after"] > 0.65
