# SPDX-License-Identifier: Apache-2.0
"""What int8 costs networks of real numbers, by network and method of quantisation, as a table.

    python tools/quantize_study.py SHARED [--only NAME ...] [--methods NAME ...] [--samples N] [--json FILE]

SHARED is the folder with models/ and data/. Calibration samples are never test samples: CIFAR-10 and
keywords have their own, the ImageNet networks are calibrated on photos of flowers, clothes and pets.

    agree   share of the test samples on which int8 and real numbers have the same top-1 class
    real    top-1 accuracy in real numbers
    int8    top-1 accuracy of the device's integers
    noise   error of the logits, root mean square, relative to the logits' own, without their means
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medyate.datasets import SCALINGS, Scaling
from medyate.frontends import load
from medyate.ir import Graph, QGraph, Weights
from medyate.passes.pipeline import simplify
from medyate.quantize.apply import input_quant, integer_tensors, quantize, run_integers
from medyate.quantize.calibrate import Calibration, answers
from medyate.real import Network, channels_first, channels_last

CALIBRATION = 256
BATCH = 10
"""Samples at a time in float64."""
KEYWORDS = Scaling(0.58470291, -83 * 0.58470291)
CIFAR_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
CIFAR_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

METHODS = {
    "minmax": Calibration("minmax", bias_correction=False),
    "minmax, bias": Calibration("minmax"),
    "percentile 99.99, bias": Calibration("percentile"),
    "percentile 99.9, bias": Calibration("percentile", percentile=99.9),
    "mse": Calibration("mse", bias_correction=False),
    "mse, bias": Calibration("mse"),
    "mse, bias, equalise": Calibration("mse", equalise=True),
}


@dataclass(frozen=True)
class Task:
    """Real samples (N, H, W, C) for calibration and for testing, and the labels of the latter."""

    calibration: NDArray[np.float32]
    samples: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """A network and its task."""

    name: str
    model: str
    task: Callable[[Path], Task]


def cifar(meaning: Callable[[NDArray[Any]], NDArray[np.float32]]) -> Callable[[Path], Task]:
    """CIFAR-10 with the pixels as the network wants them."""

    def read(shared: Path) -> Task:
        with np.load(shared / "data" / "cifar10" / "data.npz") as data:
            return Task(meaning(data["x_train"][:CALIBRATION]), meaning(data["x_test"]), data["y_test"].astype(int))

    return read


def normalised(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels as CIFAR-10's public ResNets want them."""
    return ((pixels / np.float32(255) - CIFAR_MEAN) / CIFAR_DEVIATION).astype(np.float32)


def keywords(shared: Path) -> Task:
    """Spoken words; the file has no split, so a seeded quarter calibrates."""
    with np.load(shared / "data" / "kws01" / "data.npz") as data:
        order = np.random.default_rng(0).permutation(len(data["x"]))
        x, y = KEYWORDS.real(data["x"][order]), data["y"][order].astype(int)
    return Task(x[:CALIBRATION], x[CALIBRATION:], y[CALIBRATION:])


def photos(size: int) -> Callable[[Path], Task]:
    """100 ImageNet photos, and equal parts of three other sets for calibration."""

    def read(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), np.uint8)

    def task(shared: Path) -> Task:
        folder = shared / "data" / "imagenet_sample100"
        with (folder / "labels.csv").open() as table:
            rows = list(csv.DictReader(table))
        others: list[Path] = []
        for name in ("flowers17", "clothing10", "dogcat"):
            files = sorted((shared / "data" / name / "train").rglob("*.jpg"))
            count = -(-CALIBRATION // 3)
            others += [files[i * len(files) // count] for i in range(count)]
        signed = SCALINGS["signed"]
        return Task(
            signed.real(np.stack([read(file) for file in others[:CALIBRATION]])),
            signed.real(np.stack([read(folder / row["file"]) for row in rows])),
            np.array([int(row["imagenet_index_0_999"]) for row in rows]),
        )

    return task


SUBJECTS = (
    Subject("ResNet8", "ic_resnet8_cifar10_float.onnx", cifar(SCALINGS["raw"].real)),
    Subject("ResNet-20", "resnet20-12fca82f.th", cifar(normalised)),
    Subject("DS-CNN", "kws_dscnn_float.tflite", keywords),
    Subject("MobileNetV2-0.35", "derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx", photos(128)),
    Subject("MCUNet-5FPS", "derived/mcunet-5fps_imagenet128_dequant_fp32.onnx", photos(128)),
    Subject("MobileNetV1-0.25", "derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx", photos(224)),
)


@contextmanager
def graph_file(path: Path) -> Iterator[Path]:
    """The file, or for weights without a graph the one that models/checkpoints makes of it."""
    if path.suffix != ".th":
        yield path
        return
    converter = Path(__file__).parents[1] / "models" / "checkpoints" / "to_pt2.py"
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        target = Path(folder) / "network.pt2"
        subprocess.run([sys.executable, str(converter), str(path), str(target)], check=True, stdout=subprocess.DEVNULL)
        yield target


def logits_name(graph: Graph) -> str:
    """The tensor behind the last layer with weights; a softmax would flatten its differences."""
    before = answers(graph)
    return next(name for name, _ in graph.tensors if name in before)


def real_outputs(graph: Graph, weights: Weights, samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits in real numbers."""
    network, name, found = Network(graph, weights), logits_name(graph), []
    kept: dict[str, Any] = {}
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            network(channels_first(samples[start : start + BATCH]), kept.__setitem__)
            found.append(channels_last(kept[name]).double().numpy())
    return np.concatenate(found)


def integer_outputs(
    qgraph: QGraph, weights: Weights, samples: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """(logits as real numbers, outputs as the device gives them)."""
    stored = SCALINGS["raw"].int8(samples, input_quant(qgraph)).transpose(0, 3, 1, 2).astype(np.float64)
    tensors, name = integer_tensors(weights), logits_name(qgraph.graph)
    kept: dict[str, Any] = {}

    def observe(tensor: str, value: Any) -> Any:
        kept[tensor] = value
        return value

    logits, outputs = [], []
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            y = run_integers(qgraph, tensors, torch.from_numpy(stored[start : start + BATCH]), observe)
            logits.append(channels_last(kept[name]).numpy())
            outputs.append(channels_last(y).numpy())
    quant = qgraph.quant[name]
    return (np.concatenate(logits) - quant.zero) * quant.scale, np.concatenate(outputs)


def noise(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Root mean square of the difference, relative to what is wanted, both without their samples' means."""
    centred = [x - x.mean(1, keepdims=True) for x in (found - wanted, wanted)]
    return float(np.sqrt((centred[0] ** 2).mean() / (centred[1] ** 2).mean()))


def study(subject: Subject, shared: Path, methods: list[str], count: int) -> Iterator[dict[str, Any]]:
    """The figures of every method on one network."""
    task = subject.task(shared)
    samples, labels = task.samples[:count], task.labels[:count]
    with graph_file(shared / "models" / subject.model) as path:
        imported = simplify(load(path))
    graph, weights = imported.graph, imported.weights
    wanted = real_outputs(graph, weights, samples)
    for method in methods:
        started = time.monotonic()
        qgraph, integers = quantize(graph, weights, task.calibration, METHODS[method])
        seconds = time.monotonic() - started
        logits, outputs = integer_outputs(qgraph, integers, samples)
        yield {
            "network": subject.name,
            "method": method,
            "samples": len(samples),
            "agree": float((outputs.argmax(1) == wanted.argmax(1)).mean()),
            "real": float((wanted.argmax(1) == labels).mean()),
            "int8": float((outputs.argmax(1) == labels).mean()),
            "noise": noise(logits, wanted),
            "seconds": seconds,
        }


def cell(value: object) -> str:
    """A figure as the table shows it."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="parts of networks' names")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns = ("network", "method", "samples", "agree", "real", "int8", "noise")
    print("| " + " | ".join(columns) + " |")
    print("| --- " * len(columns) + "|", flush=True)
    rows = []
    for subject in SUBJECTS:
        if options.only and not any(word in subject.name for word in options.only):
            continue
        if not (options.shared / "models" / subject.model).exists():
            print(f"{subject.name}: no {subject.model}", file=sys.stderr)
            continue
        for row in study(subject, options.shared, options.methods, options.samples):
            rows.append(row)
            print("| " + " | ".join(cell(row[key]) for key in columns) + " |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
