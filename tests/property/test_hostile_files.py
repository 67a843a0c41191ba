# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile files: a MedyateError or a network, in bounded time and memory, and no code is run.

    MEDYATE_FUZZ=20000 pytest tests/property/test_hostile_files.py

tries so many variants of every file instead of the few that a test run has time for.
"""

from __future__ import annotations

import os
import pickle
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nets
from medyate import datasets, frontends
from medyate.errors import MedyateError
from medyate.passes.pipeline import normalise
from shared_files import shared

EXAMPLES = int(os.environ.get("MEDYATE_FUZZ", "60"))
SLACK_BYTES = 8 << 20
SECONDS = 20.0
SEEDS = {
    "hello_world_int8.tflite": "models/hello_world_int8.tflite",
    "kws_dscnn_int8.tflite": "models/kws_dscnn_int8.tflite",
    "mobilenet_v1_uint8.tflite": "models/mobilenet_v1_0.25_128_quant_uint8.tflite",
    "ic_float.onnx": "models/ic_resnet8_cifar10_float.onnx",
    "mbv2.pkl": "models/mbv2-w0.35.pkl",
    "resnet20.th": "models/resnet20-12fca82f.th",
}


def sound(name: str, folder: Path) -> bytes:
    """The file before it is damaged."""
    if name.endswith(".pt2"):
        module, x = nets.build("ds_cnn")
        torch.export.save(torch.export.export(module, (x,)), folder / name)
        return (folder / name).read_bytes()
    if name.endswith(".npz"):
        rng = np.random.default_rng(0)
        parts = {"x": rng.integers(0, 255, (20, 8, 8, 3)).astype(np.uint8), "y": np.arange(20) % 4}
        np.savez(folder / name, **parts)
        return (folder / name).read_bytes()
    return shared(SEEDS[name]).read_bytes()


def read(path: Path) -> None:
    """What a command does with the file first."""
    if path.suffix == ".npz":
        datasets.load(str(path))
    else:
        normalise(frontends.load(path))


def measured(path: Path) -> tuple[int, float]:
    """(peak bytes, seconds) of reading; errors of medyate's own are an answer like any other."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        read(path)
    except MedyateError as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, time.perf_counter() - start


Edit = tuple[str, float, int]
edits: st.SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "zero", "ones", "repeat", "remove"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=12,
)


def damaged(content: bytes, changes: list[Edit]) -> bytes:
    """The file with some of its bytes changed, cut off, repeated or taken out."""
    out = bytearray(content)
    for kind, where, value in changes:
        at = int(where * len(out)) if out else 0
        if kind == "flip" and out:
            out[at] ^= value or 1
        elif kind == "cut":
            del out[at:]
        elif kind in ("zero", "ones"):
            out[at : at + 4] = (b"\0" if kind == "zero" else b"\xff") * len(out[at : at + 4])
        elif kind == "repeat":
            out[at:at] = out[at : at + value]
        else:
            del out[at : at + value]
    return bytes(out)


@pytest.fixture(scope="module")
def originals() -> dict[str, tuple[bytes, int]]:
    return {}


@pytest.mark.parametrize("name", [*SEEDS, "ds_cnn.pt2", "samples.npz"])
def test_a_damaged_file_is_an_error_and_nothing_else(
    name: str, originals: dict[str, tuple[bytes, int]], tmp_path: Path
) -> None:
    if name not in originals:
        content = sound(name, tmp_path)
        path = tmp_path / f"sound_{name}"
        path.write_bytes(content)
        measured(path)  # imports and caches count once
        originals[name] = content, measured(path)[0]
    content, honest = originals[name]
    target = tmp_path / name

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(changes=edits)
    def try_it(changes: list[Edit]) -> None:
        target.write_bytes(damaged(content, changes))
        peak, seconds = measured(target)
        assert peak <= 4 * honest + SLACK_BYTES
        assert seconds < SECONDS

    try_it()


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pkl", ".th", ".pth", ".pt2", ".npz", ".tflite", ".onnx"])
def test_no_code_of_a_pickle_runs(suffix: str, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    plain, zipped = tmp_path / f"plain{suffix}", tmp_path / f"zipped{suffix}"
    plain.write_bytes(pickle.dumps(Trap(sprung)))
    torch.save({"state_dict": Trap(sprung)}, zipped)
    for path in (plain, zipped):
        with pytest.raises(MedyateError):
            read(path)
    assert not sprung.exists()
