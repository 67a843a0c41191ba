# SPDX-License-Identifier: Apache-2.0
"""Compares every network beside the project with its own runtime on real samples, and prints the table.

    python tools/import_study.py SHARED [--samples 200] [--on host] [--only NAME ...] [--json FILE]

SHARED is the folder with models/ and data/. The figures in docs/IMPORT.md come from this command.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medyate import datasets
from medyate.check import Report, check
from medyate.datasets import AUTO, Dataset
from medyate.stages import silent

Source = Callable[[Path], Dataset]


@dataclass(frozen=True)
class Subject:
    """A model file, and where samples for it come from."""

    model: str
    source: Source
    pixels: str = AUTO


def unlabelled(name: str, samples: NDArray[Any]) -> Dataset:
    """Samples without labels."""
    labels = np.full(len(samples), -1)
    return Dataset(name, ("one", "two"), samples, labels, samples, labels)


def photos(size: int, *, background: int | None = None, grey: bool = False) -> Source:
    """100 ImageNet photos, then photos of flowers. With labels where `background` says how many classes come first."""

    def read(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as image:
            resized = image.convert("L" if grey else "RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(resized, np.uint8).reshape(size, size, -1)

    def load(shared: Path) -> Dataset:
        folder = shared / "data" / "imagenet_sample100"
        with (folder / "labels.csv").open() as table:
            rows = list(csv.DictReader(table))
        first = -2000 if background is None else background
        named = [(read(folder / row["file"]), max(-1, int(row["imagenet_index_0_999"]) + first)) for row in rows]
        flowers = [read(file) for file in sorted((shared / "data" / "flowers17" / "test").rglob("*.jpg"))[::2]]
        x, y = np.stack([image for image, _ in named]), np.array([label for _, label in named])
        more = np.stack(flowers)
        names = tuple(str(n) for n in range(1001))
        return Dataset("photos", names, more, np.full(len(more), -1), x, y)

    return load


def arrays(name: str) -> Source:
    """A stored set."""
    return lambda shared: datasets.load(str(next((shared / "data" / name).glob("*.npz"))))


def dequantised(name: str, scale: float, zero: int) -> Source:
    """A stored set of int8 features as the real numbers that they stand for."""

    def load(shared: Path) -> Dataset:
        stored = arrays(name)(shared)
        train, test = ((x.astype(np.float32) - zero) * np.float32(scale) for x in (stored.x_train, stored.x_test))
        return replace(stored, x_train=train, x_test=test)

    return load


def speech(size: int, low: float, high: float) -> Source:
    """Log-mel windows of spoken digits as vectors, brought to the network's range."""

    def load(shared: Path) -> Dataset:
        digits = arrays("fsdd")(shared)
        frames = digits.x_test.astype(np.float32).reshape(len(digits.x_test), -1)[:, :size]
        least, most = float(frames.min()), float(frames.max())
        return unlabelled("fsdd", (frames - least) / (most - least) * (high - low) + low)

    return load


def angles(_: Path) -> Dataset:
    """Angles of a full turn."""
    return unlabelled("angles", np.linspace(0, 2 * np.pi, 400, dtype=np.float32)[:, None])


SUBJECTS = (
    Subject("ic_resnet8_cifar10_int8.tflite", arrays("cifar10")),
    Subject("kws_dscnn_int8.tflite", arrays("kws01")),
    Subject("vww_mobilenetv1_025_96_int8.tflite", photos(96)),
    Subject("person_detect_int8.tflite", photos(96, grey=True)),
    Subject("ad_autoencoder_int8.tflite", speech(640, -60.0, 10.0)),
    Subject("micro_speech_int8.tflite", speech(1960, 0.0, 26.0)),
    Subject("hello_world_int8.tflite", angles),
    Subject("mobilenet_v1_0.25_128_quant_uint8.tflite", photos(128, background=1)),
    Subject("mobilenet_v2_1.0_224_quant_uint8.tflite", photos(224, background=1)),
    Subject("ic_resnet8_cifar10_float.tflite", arrays("cifar10"), "raw"),
    Subject("kws_dscnn_float.tflite", dequantised("kws01", 0.58470291, 83), "raw"),
    Subject("ic_resnet8_cifar10_float.onnx", arrays("cifar10"), "raw"),
    Subject("vww_mobilenetv1_025_96_float.tflite", photos(96), "unit"),
    Subject("vww_mobilenetv1_025_96_float.onnx", photos(96), "unit"),
    Subject("ad_autoencoder_float.tflite", speech(640, -60.0, 10.0), "raw"),
    Subject("hello_world_float.tflite", angles, "raw"),
    Subject("mbv2-w0.35.pkl", photos(128, background=0), "signed"),
    Subject("mcunet-5fps.pkl", photos(128, background=0), "signed"),
    Subject("derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx", photos(128, background=0), "signed"),
    Subject("derived/mcunet-5fps_imagenet128_dequant_fp32.onnx", photos(128, background=0), "signed"),
    Subject("derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx", photos(224, background=0), "signed"),
)
COLUMNS = (
    ("model", "model"),
    ("samples", "samples"),
    ("import_error", "import error"),
    ("exact_share", "exact"),
    ("largest_difference_steps", "largest (steps)"),
    ("predictions_agree", "agree"),
    ("accuracy_oracle", "oracle"),
    ("accuracy_device", "device"),
    ("match", "match"),
)


def study(subject: Subject, shared: Path, target: str, samples: int) -> Report:
    """One comparison."""
    dataset = subject.source(shared)
    return check(shared / "models" / subject.model, target, samples, dataset, subject.pixels, 0, silent)


def cell(value: object) -> str:
    """A figure as the table shows it."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--on", default="host")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = [s for s in SUBJECTS if not options.only or any(word in s.model for word in options.only)]
    rows = []
    print("| " + " | ".join(title for _, title in COLUMNS) + " |")
    print("| --- " * len(COLUMNS) + "|", flush=True)
    for subject in chosen:
        row = study(subject, options.shared, options.on, options.samples).to_json()
        rows.append(row)
        print("| " + " | ".join(cell(row[key]) for key, _ in COLUMNS) + " |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(0 if all(row["match"] for row in rows) else 1)


if __name__ == "__main__":
    main()
