# SPDX-License-Identifier: Apache-2.0
"""Does the device compute what the model's own runtime computes? The work behind `medyate verify`.

Three programs see the same samples: the format's runtime (the oracle), the graph in real numbers or
integers as PyTorch runs it (the reference), and the C runtime on the target.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.boards import MACHINES
from medyate.build.compile import build, check_tools
from medyate.build.project import write_project
from medyate.datasets import Dataset, Scaling, epoch_order, scaling
from medyate.frontends import load
from medyate.ir import Imported, QGraph, Quant, Weights
from medyate.oracle import ORACLES, Given, oracle_for
from medyate.passes.pipeline import simplify
from medyate.pixels import remarks
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan, inference_plan
from medyate.quantize.apply import input_quant, quantize, reference, rounded
from medyate.run.train import connect_image
from medyate.run.transport import emulator
from medyate.stages import CALIBRATION, Progress, check_packages

FLOAT_TOLERANCE = 1e-4
"""Largest difference of the imported graph from the oracle, relative to the largest output."""
HALF_TOLERANCE = 2e-2
"""The same where the oracle itself computes in float16, with 11 bits."""
STEP_TOLERANCE = 2
"""Output steps by which a runtime that requantises in float may differ."""
GRID = 1e-2
"""How far a real number may be from a whole step to count as one: binary32 holds 255 steps to 2e-5."""
AGREEMENT = 0.99
CLOSE_SHARE = 0.99
"""Outputs of a checkpoint within the tolerance. Its networks are deep and their steps coarse: one value that two
programs round apart in an early layer is a few steps in some outputs, so that no bound holds for every one."""
CHECKPOINT_AGREEMENT = 0.97
FLOAT_AGREEMENT = 0.9
EXPECTED_STEPS = 8.0
"""Root mean square of what 8 bits may take from the outputs of a network of real numbers: beyond it they do not hold
the network. The output's calibrated range is 255 steps."""
DECIDED = 4.0
"""Expected distances by which a sample's first two outputs must be apart for quantising not to turn it."""
DISTANCE_FACTOR, DISTANCE_STEPS = 2.0, 1.0
"""The device's distance may be so many times the expected one, and so many steps more."""


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
    distance_steps: float
    """Root mean square over all outputs."""
    expected_steps: float | None
    """The same of real arithmetic on rounded weights and tensors: what quantising costs, whatever computes it."""
    exact_share: float
    """Outputs on which device and oracle agree to the step."""
    close_share: float
    """Outputs on which they agree within STEP_TOLERANCE steps."""
    predictions_agree: float
    decided_agree: float | None
    """The same over the samples that quantising should not turn: the oracle's first two outputs are further apart than
    DECIDED times `expected_steps`; None where there is none."""
    accuracy_oracle: float | None
    accuracy_device: float | None
    reference_differences: int
    """Outputs on which the device differs from the integers in PyTorch; always 0 unless it is broken."""
    left_out: str
    """What the file does to its output at last and the device does not; it was done to the device's outputs here."""
    notes: tuple[str, ...]
    faults: tuple[str, ...]
    """What does not match."""
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
    path: Path,
    target: str,
    count: int,
    dataset: Dataset | None,
    pixels: str,
    seed: int,
    progress: Progress,
    output: str = "",
) -> Report:
    """Compares an output (the first one) on `count` samples of the data's test part, or on random ones."""
    check_installed(path, target)
    imported = simplify(load(path, output))
    shape = imported.graph.shapes[imported.graph.input]
    fitted = None if dataset is None else dataset.fit(shape)
    meaning = None if fitted is None else scaling(pixels, fitted.x_train, imported.input_quant)
    qgraph, weights = quantised_form(imported, fitted, meaning, seed)
    samples = choose(qgraph, fitted, meaning, count, seed)
    plan = inference_plan(qgraph, weights, Limits(1 << 40), least=True)
    plan = replace(plan, limits=Limits(ram_for(plan)))
    device = run_device(plan, target, samples.stored, progress)
    report = compare(path, imported, (qgraph, weights), target, samples, device, output)
    said = () if fitted is None else tuple(remarks(imported, fitted, pixels))
    return replace(report, notes=(*report.notes, *said))


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
    random = np.random.default_rng(seed)
    if imported.input_range is None:
        noise = random.uniform(-1, 1, (CALIBRATION, *shape)).astype(np.float32)
    else:
        low, high = imported.input_range
        noise = random.integers(low, high + 1, (CALIBRATION, *shape)).astype(np.float32)
        noise.flat[:2] = low, high  # so that every number is one of the input's steps
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
    output: str = "",
) -> Report:
    """The figures, and whether they are good enough."""
    qgraph, weights = quantised
    if imported.left_out == "argmax":
        return _compare_choices(path, imported, quantised, target, samples, device, output)
    quant, is_quantised = qgraph.quant[qgraph.graph.output], imported.qgraph is not None
    real = _real(samples.stored, input_quant(qgraph)) if is_quantised else samples.real
    answers = oracle_for(path)(path, Given(samples.stored, real, output))
    steps = answers.astype(np.float64).reshape(device.shape)
    if answers.dtype != np.int8:
        steps = in_steps(steps, quant)
    if is_quantised and not imported.left_out:
        steps = on_grid(steps)
    made = _as_file(imported, device, quant)
    apart = np.abs(steps - made)
    agreeing = steps.argmax(1) == device.argmax(1)
    import_error = expected = decided = None
    if not is_quantised:
        import_error = real_error(imported, samples.real, answers)
        exact = _as_file(imported, in_steps(rounded(qgraph, weights, samples.real), quant), quant)
        expected = root_mean_square(exact - steps)
        clear = margins(steps) > DECIDED * expected
        decided = float(agreeing[clear].mean()) if clear.any() else None
    report = Report(
        model=path.name,
        target=target,
        quantised=is_quantised,
        samples=len(device),
        source="random" if samples.labels is None else "data",
        import_error=import_error,
        largest_difference_steps=float(apart.max()),
        distance_steps=root_mean_square(apart),
        expected_steps=expected,
        exact_share=float((np.round(apart) == 0).mean()),
        close_share=float((apart <= STEP_TOLERANCE).mean()),
        predictions_agree=float(agreeing.mean()),
        decided_agree=decided,
        accuracy_oracle=_accuracy(steps, samples.labels),
        accuracy_device=_accuracy(device, samples.labels),
        reference_differences=int((reference(qgraph, weights, samples.stored) != device).sum()),
        left_out=imported.left_out,
        notes=imported.notes,
        faults=(),
        match=False,
    )
    faults = tuple(_faults(report, path, half=answers.dtype == np.float16))
    return replace(report, faults=faults, match=not faults)


def _as_file(imported: Imported, steps: NDArray[Any], quant: Quant) -> NDArray[np.float64]:
    """Output steps after what the file does to its output at last."""
    if imported.left_out != "log_softmax":
        return steps.astype(np.float64)
    return in_steps(log_softmax((steps.astype(np.float64) - quant.zero) * quant.scale), quant)


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the shares, by rows."""
    below = logits - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return found


def _compare_choices(
    path: Path,
    imported: Imported,
    quantised: tuple[QGraph, Weights],
    target: str,
    samples: Samples,
    device: NDArray[np.int8],
    output: str,
) -> Report:
    """Of a file that says which output is the largest: the device's largest output is the one."""
    qgraph, weights = quantised
    real = samples.real if imported.qgraph is None else _real(samples.stored, input_quant(qgraph))
    answers = oracle_for(path)(path, Given(samples.stored, real, output)).reshape(len(device)).astype(np.int64)
    differences = int((reference(qgraph, weights, samples.stored) != device).sum())
    agree = float((answers == device.argmax(1)).mean())
    faults = (
        [f"{differences:,} outputs differ from those that the same integers give in PyTorch"] if differences else []
    )
    if agree < (FLOAT_AGREEMENT if imported.qgraph is None else AGREEMENT):
        faults.append(f"only {agree:.1%} of the predictions agree")
    return Report(
        model=path.name,
        target=target,
        quantised=imported.qgraph is not None,
        samples=len(device),
        source="random" if samples.labels is None else "data",
        import_error=None,
        largest_difference_steps=0.0,
        distance_steps=0.0,
        expected_steps=None,
        exact_share=agree,
        close_share=agree,
        predictions_agree=agree,
        decided_agree=None,
        accuracy_oracle=None,
        accuracy_device=_accuracy(device, samples.labels),
        reference_differences=differences,
        left_out=imported.left_out,
        notes=imported.notes,
        faults=tuple(faults),
        match=not faults,
    )


def _faults(report: Report, path: Path, *, half: bool) -> Iterator[str]:
    """What does not match, in sentences."""
    if report.reference_differences:
        yield f"{report.reference_differences:,} outputs differ from those that the same integers give in PyTorch"
    if not report.quantised:
        yield from _real_faults(report, HALF_TOLERANCE if half else FLOAT_TOLERANCE)
        return
    agree, farthest = report.predictions_agree, report.largest_difference_steps
    kind = ORACLES[path.suffix]
    if kind == "checkpoint":
        if report.close_share < CLOSE_SHARE:
            yield f"only {report.close_share:.1%} of the outputs are within {STEP_TOLERANCE} steps"
        if report.source == "data" and agree < CHECKPOINT_AGREEMENT:
            yield f"only {agree:.1%} of the predictions agree"
        return
    most = STEP_TOLERANCE if kind == "onnx" else (GRID if report.left_out else 0)
    if farthest > most:
        yield f"outputs are up to {farthest:.3g} steps apart, {most} are allowed"
    if kind == "onnx" and agree < AGREEMENT:
        yield f"only {agree:.1%} of the predictions agree"


def _real_faults(report: Report, tolerance: float) -> Iterator[str]:
    """Of a network of real numbers: read wrongly, computed wrongly, or not to be held by 8 bits."""
    assert report.import_error is not None and report.expected_steps is not None
    if report.import_error > tolerance:
        off = f"{report.import_error:.2g} of the largest output"
        yield f"the imported network is off by {off}, {tolerance:g} is allowed"
    if report.expected_steps > EXPECTED_STEPS:
        yield f"8 bits are too few for this network: quantising alone costs {report.expected_steps:.3g} steps"
    most = DISTANCE_FACTOR * report.expected_steps + DISTANCE_STEPS
    if report.distance_steps > most:
        yield f"outputs are {report.distance_steps:.3g} steps apart on average, quantising explains {most:.3g}"
    agree = report.predictions_agree if report.source == "data" else report.decided_agree
    if agree is not None and agree < FLOAT_AGREEMENT:
        which = "the predictions" if report.source == "data" else "the clear predictions"
        yield f"only {agree:.1%} of {which} agree"


def in_steps(real: NDArray[Any], quant: Quant) -> NDArray[np.float64]:
    """Real numbers in steps of a tensor, not rounded."""
    steps: NDArray[np.float64] = real.astype(np.float64) / quant.scale + quant.zero
    return steps


def on_grid(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steps that a file gave as real numbers: whole where they are, but for the rounding of binary32."""
    whole = np.round(steps)
    return np.where(np.abs(steps - whole) < GRID, whole, steps)


def margins(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the largest output of each sample is above the next one; nothing for a single output."""
    if steps.shape[1] < 2:
        return np.zeros(len(steps))
    ordered = np.sort(steps, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def root_mean_square(values: NDArray[np.float64]) -> float:
    """Over all values."""
    return float(np.sqrt(np.mean(np.square(values))))


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
    if imported.left_out == "log_softmax":
        found = log_softmax(found.astype(np.float64))
    return float(np.abs(found - answers).max() / max(float(np.abs(answers).max()), 1e-12))
