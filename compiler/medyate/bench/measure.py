# SPDX-License-Identifier: Apache-2.0
"""Runs a compiled network on its emulated core and counts: an inference, training steps, a commit.

The inference is that of the network as it starts, without selected channels. The steps are those of the first epoch's
selection, the mean of some after the first ones, whose head is still zeros. All of it follows from the image and the
samples, so that two runs give the same counts.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import artefact, files
from medyate.bench import counter
from medyate.bench.costs import Costs
from medyate.bench.phases import COMMIT, INFERENCE, PHASES, TRAINING_STEP
from medyate.bench.result import summary
from medyate.bench.sites import OUTSIDE, Sites, Work
from medyate.boards import BOARDS, MACHINES
from medyate.compiled import COMPILE
from medyate.datasets import Dataset, Scaling, epoch_order
from medyate.errors import ArtefactError, DataError, ToolchainError
from medyate.graph_json import quantised_from_json
from medyate.ir import Graph
from medyate.recipe import RATE
from medyate.run.session import Result, Session, Training
from medyate.run.train import Compiled, connect, int8_samples

WARM, MEASURED = 2, 4
"""Training steps, or batches where an update takes several samples."""
SEED = 0


@dataclass(frozen=True)
class Samples:
    """What the device is given, one of them for each step."""

    source: str
    values: NDArray[np.int8]
    labels: NDArray[Any]


@dataclass(frozen=True)
class Count:
    """Instructions of one phase."""

    total: int
    layers: Mapping[Work, int]
    """What of them belongs to a layer."""


@dataclass(frozen=True)
class Counts:
    """What a run of the program gave."""

    phases: Mapping[str, Count]
    """By the names of PHASES; without the commit where the device's timer counted, which does not tell."""
    selected: Mapping[str, int]
    """Channels by layer, in the steps."""


def bench(compiled: Compiled, dataset: Dataset | None, key: bytes | None = None) -> dict[str, Any]:
    """All that `medyate bench` says of a compiled folder. Raises DataError for one of this machine."""
    target = str(compiled.model["target"])
    if target not in MACHINES:
        what = f"'{compiled.folder}' was compiled for {target}, where no instructions are counted."
        raise DataError(what, f"Compile for one of {', '.join(MACHINES)}.")
    graph = graph_of(compiled)
    weights = artefact.read_arrays(compiled.folder / "03_quantised.npz")
    with files.boundary(ArtefactError, f"plan and network in '{compiled.folder}' do not fit each other", COMPILE):
        costs = Costs(compiled.plan, graph, weights)
    samples = choose(compiled, dataset)
    missing = None
    try:
        counts = _counted(compiled, samples, sites_of(compiled, graph), key)
    except ToolchainError as error:
        missing = str(error)
        counts = _timed(compiled, samples, key)
    rows = [row for phase, count in counts.phases.items() for row in costs.rows(phase, count.layers, counts.selected)]
    totals = {phase: count.total for phase, count in counts.phases.items()}
    facts = {
        "network": compiled.model["network"],
        "target": target,
        "core": BOARDS[target].core,
        "samples": samples.source,
        "selected": dict(counts.selected),
        "no_layers": missing,
    }
    return summary(facts, totals, rows if missing is None else None)


def graph_of(compiled: Compiled) -> Graph:
    """The network of a folder. Raises ArtefactError when it is gone."""
    return quantised_from_json(artefact.read_json(compiled.folder / "03_quantised.json")).graph


def sites_of(compiled: Compiled, graph: Graph) -> Sites:
    """The program's addresses. Raises ToolchainError when the generated code is gone, or another."""
    found = sorted((compiled.folder / "project" / "src").glob("*_model.c"))
    if len(found) != 1:
        raise ToolchainError("the generated code is not beside the image.", COMPILE)
    return Sites(compiled.image, found[0], graph)


def _steps(compiled: Compiled) -> tuple[int, int]:
    """(steps before those that are measured, steps that are)."""
    batch = int(compiled.plan["batch"])
    return WARM * batch, MEASURED * batch


def choose(compiled: Compiled, dataset: Dataset | None) -> Samples:
    """Training samples in the order of an epoch, or noise."""
    count = sum(_steps(compiled))
    if dataset is not None:
        values, _ = int8_samples(compiled, dataset)
        labels = dataset.with_targets(Scaling(*compiled.model["pixels"])).y_train
        order = np.resize(epoch_order(SEED, 0, len(values)), count)
        return Samples(dataset.name, values[order], labels[order])
    random, outputs = np.random.default_rng(SEED), int(compiled.model["outputs"])
    values = random.integers(-128, 128, (count, *compiled.model["input_shape"]), np.int8)
    classes = np.arange(count) % outputs
    return Samples("noise", values, classes if compiled.model["classes"] else random.normal(size=(count, outputs)))


def _play(session: Session, compiled: Compiled, samples: Samples) -> tuple[list[Result], dict[str, int]]:
    """(an inference and then the training steps, selected channels by layer); a commit follows them."""
    count = len(samples.values)
    session.begin(Training(RATE, 1, count, "constant", seed=SEED, head_only=True))
    results = [session.infer(samples.values[0], samples.labels[0])]
    session.begin(Training(RATE, 1, count, "constant", seed=SEED))
    candidates = compiled.plan["candidates"]
    ends = np.cumsum([candidate["channels"] for candidate in candidates])[:-1]
    chosen = [int(part.sum()) for part in np.split(session.selection(), ends)]
    selected = {candidate["layer"]: count for candidate, count in zip(candidates, chosen, strict=False) if count}
    results += [session.train(*pair) for pair in zip(samples.values, samples.labels, strict=True)]
    session.commit()
    return results, selected


def _timed(compiled: Compiled, samples: Samples, key: bytes | None) -> Counts:
    """Totals by the device's own timer, in its ticks."""
    with (
        tempfile.TemporaryDirectory(prefix="medyate-") as name,
        connect(compiled, "qemu", Path(name) / "flash.bin", key=key) as session,
    ):
        results, selected = _play(session, compiled, samples)
    before, measured = _steps(compiled)
    mean = round(sum(result.instructions for result in results[1 + before :]) / measured)
    return Counts({INFERENCE: Count(results[0].instructions, {}), TRAINING_STEP: Count(mean, {})}, selected)


def spans(
    compiled: Compiled, samples: Samples, sites: Sites, key: bytes | None = None, *, blocks: bool = False
) -> tuple[dict[str, list[counter.Span]], dict[str, int]]:
    """(what was counted, by phase; selected channels by layer). Raises ToolchainError without the plugin."""
    with counter.built() as plugin, tempfile.TemporaryDirectory(prefix="medyate-") as name:
        out = Path(name) / "counts"
        given = counter.arguments(plugin, out, list(sites.spans), sites.watched, blocks=blocks)
        with connect(compiled, "qemu", Path(name) / "flash.bin", key=key, plugin=given) as session:
            _, selected = _play(session, compiled, samples)
        found = counter.read(out)
    by_phase = {phase: [span for span in found if sites.spans[span.function] == phase] for phase in PHASES}
    before, measured = _steps(compiled)
    wanted = {INFERENCE: 1, TRAINING_STEP: before + measured, COMMIT: 1}
    if {phase: len(of) for phase, of in by_phase.items()} != wanted:
        raise ToolchainError("the image does other work than was asked of it.", COMPILE)
    by_phase[TRAINING_STEP] = by_phase[TRAINING_STEP][before:]
    return by_phase, selected


def _counted(compiled: Compiled, samples: Samples, sites: Sites, key: bytes | None) -> Counts:
    """Exact counts, by calls. Raises ToolchainError where they cannot be told apart."""
    found, selected = spans(compiled, samples, sites, key)
    sites.check({address for of in found.values() for span in of for address in span.counts})
    return Counts({phase: _mean(of, sites) for phase, of in found.items()}, selected)


def _mean(spans: Sequence[counter.Span], sites: Sites) -> Count:
    """The mean of some spans, by work."""
    layers: Counter[Work] = Counter()
    total = 0
    for span in spans:
        total += span.instructions
        for address, count in span.counts.items():
            work = sites.work(address)
            if work is OUTSIDE:
                total -= count
            elif work is not None:
                layers[work] += count
    return Count(round(total / len(spans)), {work: round(count / len(spans)) for work, count in layers.items()})
