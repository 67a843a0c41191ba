# SPDX-License-Identifier: Apache-2.0
"""Trains every network beside the project for one epoch on the host twin, and prints the losses around it.

    python tools/training_study.py SHARED [--only NAME ...]

SHARED is the folder with models/ and data/. The losses are means over the test part, as the device computes them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from import_study import Source, arrays, dequantised
from medyate import datasets
from medyate.datasets import AUTO, Dataset
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.stages import Options, compile_model

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "checkpoints"))

RAM_BYTES = 8 << 20
"""More than any of them needs: the study is of learning, not of memory."""


@dataclass(frozen=True)
class Task:
    """A network, the data it is fine-tuned on, and how."""

    model: str
    source: Source
    pixels: str = AUTO
    head: str = "new"
    limit: int = 400
    """Training samples."""
    tests: int = 100
    rate: float = 0.0015

    def dataset(self, shared: Path) -> Dataset:
        """As many samples as the task is for, in a seeded order."""
        return self.source(shared).first(self.limit, self.tests)


def images(name: str, size: int) -> Source:
    """A set of class folders at another size."""

    def load(shared: Path) -> Dataset:
        return datasets.load(str(shared / "data" / name)).resized((size, size, 3))

    return load


def spoken(size: int, low: float, high: float) -> Source:
    """Spoken digits with their labels, as vectors in a network's range."""

    def load(shared: Path) -> Dataset:
        digits = arrays("fsdd")(shared)
        parts = [x.astype(np.float32).reshape(len(x), -1)[:, :size] for x in (digits.x_train, digits.x_test)]
        least, most = (float(f(parts[0])) for f in (np.min, np.max))
        train, test = ((x - least) / (most - least) * (high - low) + low for x in parts)
        return replace(digits, x_train=train, x_test=test)

    return load


def reconstructed(source: Source) -> Source:
    """The samples of a set as their own targets."""

    def load(shared: Path) -> Dataset:
        found = source(shared)
        none = (np.zeros((len(x), 0), np.float32) for x in (found.x_train, found.x_test))
        return replace(found, classes=(), y_train=next(none), y_test=next(none))

    return load


def sine(_: Path) -> Dataset:
    """A sine of another height and phase than the network has learned."""
    x = np.linspace(0, 2 * np.pi, 400, dtype=np.float32)[:, None]
    y = (0.7 * np.sin(x + 0.5)).astype(np.float32)
    test = np.arange(len(x)) % 4 == 0
    return Dataset("sine", (), x[~test], y[~test], x[test], y[test])


FLOWERS, PETS, SPEECH = images("flowers17", 128), images("dogcat", 96), spoken(640, -60.0, 10.0)
TASKS = (
    Task("ic_resnet8_cifar10_int8.tflite", arrays("cifar10")),
    Task("ic_resnet8_cifar10_float.tflite", arrays("cifar10"), "raw"),
    Task("ic_resnet8_cifar10_float.onnx", arrays("cifar10"), "raw"),
    Task("resnet20-12fca82f.th", arrays("cifar10"), "signed"),
    Task("resnet56-4bfd9763.th", arrays("cifar10"), "signed", limit=40, tests=40),
    Task("kws_dscnn_int8.tflite", arrays("kws01")),
    Task("kws_dscnn_float.tflite", dequantised("kws01", 0.58470291, 83), "raw"),
    Task("vww_mobilenetv1_025_96_int8.tflite", PETS, limit=1119, rate=0.006),
    Task("vww_mobilenetv1_025_96_float.tflite", PETS, "unit", limit=1119, rate=0.006),
    Task("vww_mobilenetv1_025_96_float.onnx", PETS, "unit", limit=1119, rate=0.006),
    Task("person_detect_int8.tflite", PETS, limit=1119, rate=0.006),
    Task("ad_autoencoder_int8.tflite", reconstructed(SPEECH), head="keep"),
    Task("ad_autoencoder_float.tflite", reconstructed(SPEECH), "raw", head="keep"),
    Task("micro_speech_int8.tflite", spoken(1960, 0.0, 26.0)),
    Task("hello_world_int8.tflite", sine, head="keep"),
    Task("hello_world_float.tflite", sine, "raw", head="keep"),
    Task("mobilenet_v1_0.25_128_quant_uint8.tflite", FLOWERS),
    Task("mobilenet_v2_1.0_224_quant_uint8.tflite", images("dogcat", 224), limit=24, tests=12),
    Task("mbv2-w0.35.pkl", FLOWERS, limit=120, tests=60),
    Task("mcunet-5fps.pkl", FLOWERS, limit=120, tests=60),
    Task("derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx", FLOWERS, limit=120, tests=60),
    Task("derived/mcunet-5fps_imagenet128_dequant_fp32.onnx", FLOWERS, limit=120, tests=60),
    Task("derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx", images("flowers17", 224), limit=200),
)


def importable(model: Path, folder: Path) -> Path:
    """The file itself; of weights without a graph, the program that models/checkpoints makes of them."""
    if model.suffix != ".th":
        return model
    import to_pt2

    program = folder / model.with_suffix(".pt2").name
    to_pt2.convert(model, program)
    return program


def one_epoch(task: Task, shared: Path, folder: Path) -> dict[str, Any]:
    """Compiles for the host twin and trains for one epoch; the run log."""
    dataset = task.dataset(shared)
    options = Options("host", Limits(RAM_BYTES), task.pixels, head=task.head, rank_epochs=1)
    compile_model(importable(shared / "models" / task.model, folder), dataset, options, folder / "out")
    training = Training(task.rate, 1, len(dataset.x_train), clip=0.0)
    chosen = RunOptions("host", training, folder / "flash.bin", measure=False)
    return run(Compiled.read(folder / "out"), dataset, chosen, lambda _: None)


def main() -> None:
    """Runs the study; exit code 1 if a loss does not fall."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    fallen = True
    print("| model | head | samples | loss before | loss after |\n| --- | --- | --- | --- | --- |", flush=True)
    for task in TASKS:
        if options.only and not any(word in task.model for word in options.only):
            continue
        with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
            log = one_epoch(task, options.shared, Path(folder))
        before, after = log["loss_before"], log["loss_after"]
        fallen &= after < before
        print(f"| {task.model} | {task.head} | {log['epoch_samples']} | {before:.4g} | {after:.4g} |", flush=True)
    sys.exit(0 if fallen else 1)


if __name__ == "__main__":
    main()
