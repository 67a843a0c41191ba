# SPDX-License-Identifier: Apache-2.0
"""Does the device compute what the model's own runtime computes? The work behind `medyate verify`.

Three programs see the same samples: the format's runtime (the oracle), the graph in real numbers or
integers as PyTorch runs it (the reference), and the C runtime on the target.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.build.compile import build, check_tools
from medyate.build.project import write_project
from medyate.data import Dataset, Scaling, epoch_order, scaling
from medyate.frontends import load
from medyate.ir import Imported, QGraph, Quant, Weights
from medyate.oracle import ORACLES, oracle_for
from medyate.passes.pipeline import simplify
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan, inference_plan
from medyate.quantize.apply import input_quant, quantize, reference
from medyate.run.train import connect_image
from medyate.run.transport import MACHINES, emulator
from medyate.stages import CALIBRATION, Progress, check_packages

FLOAT_TOLERANCE = 1e-4
"""Largest difference of the imported graph from the oracle, relative to the largest output."""
STEP_TOLERANCE = 2
"""Output steps by which a runtime that requantises in float may differ."""
AGREEMENT = 0.99
CLOSE_SHARE = 0.99
"""Outputs of a checkpoint within the tolerance. Its networks are deep and their steps coarse: one value that two
programs round apart in an early layer is a few steps in some outputs, so that no bound holds for every one."""
CHECKPOINT_AGREEMENT = 0.97
FLOAT_AGREEMENT = 0.9


@dataclass(frozen=True)
class Report:
    """What the comparison found; 'steps' are of the device's int8 output."""

    model: str
    target: str
    quantised: bool
    samples: int
    source: str
    """'data' or 'random'."""
    import_error: float | None
    """Of a network of real numbers: imported graph against oracle, relative to the largest output."""
    largest_difference_steps: float
    exact_share: float
    """Outputs on which device and oracle agree to the step."""
    close_share: float
    """Outputs on which they agree within STEP_TOLERANCE steps."""
    predictions_agree: float
    accuracy_oracle: float | None
    accuracy_device: float | None
    reference_differences: int
    """Outputs on which the device differs from the integers in PyTorch; always 0 unless it is broken."""
    notes: tuple[str, ...]
    match: bool

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class Samples:
    """What the three programs are given."""

    stored: NDArray[np.int8]
    """The device's input."""
    real: NDArray[np.float32]
    """What it stands for."""
    labels: NDArray[np.int64] | None


def check_installed(path: Path, target: str) -> None:
    """Raises ModelError for an unknown format, ToolchainError when anything is missing that a comparison needs."""
    check_packages(path)
    oracle_for(path)
    check_tools(target, "make")
    if target in MACHINES:
        emulator()


def check(
    path: Path, target: str, count: int, dataset: Dataset | None, pixels: str, seed: int, progress: Progress
) -> Report:
    """Compares on `count` samples of the data's test part, or on random ones."""
    check_installed(path, target)
    imported = simplify(load(path))
    shape = imported.graph.shapes[imported.graph.input]
    fitted = None if dataset is None else dataset.fit(shape)
    own = None if imported.qgraph is None else input_quant(imported.qgraph)
    meaning = None if fitted is None else scaling(pixels, fitted.x_train, own)
    qgraph, weights = quantised_form(imported, fitted, meaning, seed)
    samples = choose(qgraph, fitted, meaning, count, seed)
    plan = inference_plan(qgraph, weights, Limits(1 << 40))
    plan = replace(plan, limits=Limits(ram_for(plan)))
    device = run_device(plan, target, samples.stored, progress)
    return compare(path, imported, (qgraph, weights), target, samples, device)


def quantised_form(
    imported: Imported, dataset: Dataset | None, meaning: Scaling | None, seed: int
) -> tuple[QGraph, Weights]:
    """The network's own integers, or those of a calibration on training samples, else on noise."""
    if imported.qgraph is not None:
        return imported.qgraph, imported.weights
    if dataset is not None and meaning is not None:
        order = epoch_order(0, 0, len(dataset.x_train))[:CALIBRATION]
        return quantize(imported.graph, imported.weights, meaning.real(dataset.x_train[order]))
    shape = imported.graph.shapes[imported.graph.input]
    noise = np.random.default_rng(seed).uniform(-1, 1, (CALIBRATION, *shape)).astype(np.float32)
    return quantize(imported.graph, imported.weights, noise)


def choose(qgraph: QGraph, dataset: Dataset | None, meaning: Scaling | None, count: int, seed: int) -> Samples:
    """Test samples first, then training samples; or int8 noise."""
    quant = input_quant(qgraph)
    if dataset is None or meaning is None:
        shape = qgraph.graph.shapes[qgraph.graph.input]
        stored = np.random.default_rng(seed + 1).integers(-128, 128, (count, *shape)).astype(np.int8)
        return Samples(stored, _real(stored, quant), None)
    x = np.concatenate([dataset.x_test, dataset.x_train])
    y = np.concatenate([dataset.y_test, dataset.y_train])
    order = np.concatenate([epoch_order(seed, 0, len(dataset.x_test)), np.arange(len(dataset.x_test), len(x))])
    chosen = order[:count]
    stored = meaning.int8(x[chosen], quant)
    return Samples(stored, meaning.real(x[chosen]), y[chosen])


def _real(stored: NDArray[Any], quant: Quant) -> NDArray[np.float32]:
    real: NDArray[np.float32] = ((stored.astype(np.float32) - quant.zero) * quant.scale).astype(np.float32)
    return real


def ram_for(plan: Plan) -> int:
    """Enough RAM for inference, in whole kB."""
    from medyate import ledger

    return ledger.align(plan.arena_bytes + plan.limits.reserved_bytes + 1024, 1024)


def run_device(plan: Plan, target: str, samples: NDArray[np.int8], progress: Progress) -> NDArray[np.int8]:
    """Outputs (n, k) of the C runtime."""
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        project = Path(folder) / "project"
        progress("build", 0, 1)
        write_project(plan, project)
        image = build(plan, project, target, "make")
        outputs = []
        with connect_image(image.path, target, plan.digest, Path(folder) / "flash.bin") as session:
            session.begin_inference()
            for number, sample in enumerate(samples):
                session.infer(sample)
                outputs.append(session.output())
                progress("device", number + 1, len(samples))
    return np.array(outputs)


def compare(
    path: Path,
    imported: Imported,
    quantised: tuple[QGraph, Weights],
    target: str,
    samples: Samples,
    device: NDArray[np.int8],
) -> Report:
    """The figures, and whether they are good enough."""
    qgraph, weights = quantised
    quant = qgraph.quant[qgraph.graph.output]
    given = samples.real if imported.qgraph is None else samples.stored
    answers = oracle_for(path)(path, given)
    steps = answers.astype(np.float64)
    if answers.dtype != np.int8:
        steps = steps / quant.scale + quant.zero
    apart = np.abs(steps.reshape(device.shape) - device)
    exact = float((np.round(apart) == 0).mean())
    agree = float((steps.argmax(1) == device.argmax(1)).mean())
    import_error = real_error(imported, samples.real, answers) if imported.qgraph is None else None
    wrong = int((reference(qgraph, weights, samples.stored) != device).sum())
    close = float((apart <= STEP_TOLERANCE).mean())
    if import_error is not None:
        match = import_error <= FLOAT_TOLERANCE and (samples.labels is None or agree >= FLOAT_AGREEMENT)
    elif path.suffix == ".onnx":
        match = float(apart.max()) <= STEP_TOLERANCE and agree >= AGREEMENT
    elif ORACLES[path.suffix] == "checkpoint":
        match = close >= CLOSE_SHARE and (samples.labels is None or agree >= CHECKPOINT_AGREEMENT)
    else:
        match = float(apart.max()) == 0
    return Report(
        model=path.name,
        target=target,
        quantised=imported.qgraph is not None,
        samples=len(device),
        source="random" if samples.labels is None else "data",
        import_error=import_error,
        largest_difference_steps=float(apart.max()),
        exact_share=exact,
        close_share=close,
        predictions_agree=agree,
        accuracy_oracle=_accuracy(steps, samples.labels),
        accuracy_device=_accuracy(device, samples.labels),
        reference_differences=wrong,
        notes=imported.notes,
        match=match and wrong == 0,
    )


def _accuracy(outputs: NDArray[Any], labels: NDArray[np.int64] | None) -> float | None:
    """Over the samples that have a label: others have -1."""
    if labels is None or labels.ndim != 1 or labels.max() >= outputs.shape[1] or labels.max() < 0:
        return None
    known = labels >= 0
    return float((outputs.argmax(1) == labels)[known].mean())


def real_error(imported: Imported, samples: NDArray[np.float32], answers: NDArray[Any]) -> float:
    """Largest difference of the imported graph from the oracle, relative to the largest output."""
    import torch

    from medyate.real import Network, channels_first, channels_last

    network = Network(imported.graph, imported.weights)
    with torch.no_grad():
        found = channels_last(network(channels_first(samples))).numpy()
    return float(np.abs(found - answers).max() / max(float(np.abs(answers).max()), 1e-12))
