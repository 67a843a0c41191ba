# SPDX-License-Identifier: Apache-2.0
"""The pipeline: import, normalise, quantise, rank, plan, emit, build; each stage leaves its artefact.

01_import.json .npz      the graph as it came
02_normalised.json .npz  batch norms folded, activations fused, classifier cut off
03_quantised.json .npz   scales, zero points, int8 weights, int32 biases
04_ranking.json .npz     LaRa and TraDy scores; the head of the fine-tuning that they come from
05_plan.json             bytes by region, candidates, offsets
project/                 C sources and build files
model.json               what `run` needs to know
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import artefact, cache, frontends, ledger
from medyate.boards import Board
from medyate.build.compile import Image, build, check_tools, reserves_suffice
from medyate.build.project import APP, Placed, config, write_project
from medyate.compiled import check_own
from medyate.datasets import AUTO, Dataset, Scaling, epoch_order, scaling
from medyate.emit.context import Data
from medyate.emit.emitter import PREFIX
from medyate.emit.size import image_bytes
from medyate.errors import ArtefactError, BudgetError, DataError, ModelError
from medyate.extras import require
from medyate.graph_json import to_json
from medyate.ir import Imported, QGraph, Quant, Shape, Weights, elements
from medyate.passes.ending import Classifier
from medyate.passes.pipeline import Normalised, normalise, simplify
from medyate.pixels import remarks
from medyate.plan.banks import BankFlash
from medyate.plan.budget import Limits, Network
from medyate.plan.instructions import Effort
from medyate.plan.plan import (
    CALIBRATION_SAMPLES,
    Calibration,
    Head,
    Plan,
    classes_loss,
    kept_head,
    make_plan,
    new_head,
    squared_loss,
)
from medyate.plan.sectors import Reservation, reserve
from medyate.plan.selecting import DRAWN, Selecting
from medyate.plan.stream import Planner
from medyate.quantize.apply import input_quant, quantize, reference
from medyate.rank.collect import GradientNorms, collect
from medyate.rank.lara import Ranking, rank
from medyate.rank.provenance import provenance
from medyate.strategies import find_strategy
from medyate.strategies.device import on_device
from medyate.strategies.problem import Settings
from medyate.strategies.strategy import Sampled

CALIBRATION = 256
"""Training samples whose ranges set the scales."""

ROUNDS = 4
"""Builds, until one fits in what the one before it needed."""

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """A progress sink for callers that show none."""


@dataclass(frozen=True)
class Options:
    """What the user chose for `compile`."""

    target: str
    limits: Limits
    pixels: str = AUTO
    rounding: str = "auto"
    """How requantisation rounds: 'once' as onnxruntime, 'twice' as TFLite, 'auto' as the file's format does."""
    head: str = "new"
    rank_epochs: int = 3
    ranking: Path | None = None
    builder: str = "platformio"
    seed: int = 0
    split: float = 0.25
    """Share for testing of data without a split of its own; kept, so that `run` splits alike."""
    board_ram_bytes: int | None = None
    """RAM in the linker script; None: the limit."""
    board: Board | None = None
    """The chip that is planned for: its flash has to hold the image and two banks."""
    flash: BankFlash | None = None
    """Sectors for the banks; None: the board's, or what the emulated boards take."""
    strategy: str = "medyate"
    settings: Settings = field(default_factory=Settings)
    """Of the strategy."""
    tight: bool = False
    """Plan again with what the first image needs for static data and stack."""
    prefix: str = PREFIX
    """In front of the generated files, symbols and macros."""
    kernels: str | None = None
    """Family of kernels; None: the target's own."""
    app: str = APP
    """Application of firmware/apps."""
    output: str = ""
    """Of a model with several, by name: the one that is trained."""
    link_key: bytes | None = None
    """Guards what ends, resets or reads out the program; None: the emulated targets are open."""


def _write(out: Path, name: str, content: Mapping[str, Any], weights: Weights) -> None:
    artefact.write_json(out / f"{name}.json", content)
    artefact.write_arrays(out / f"{name}.npz", weights)


def prepare(
    imported: Imported, dataset: Dataset, pixels: str, rounding: str = "auto"
) -> tuple[Normalised, QGraph, Weights, Dataset, Scaling]:
    """Normalise and quantise; the data come back as the network takes them, with what they mean to it."""
    normal = normalise(imported)
    fitted = dataset.check(normal.graph.shapes[normal.graph.input])
    meaning = scaling(pixels, fitted.x_train, imported.input_quant)
    fitted = fitted.with_targets(meaning)
    if normal.quantised is not None:
        qgraph, integers = normal.quantised
    else:
        order = epoch_order(0, 0, len(fitted.x_train))[:CALIBRATION]
        qgraph, integers = _quantised(normal, meaning.real(fitted.x_train[order]))
    if rounding != "auto":
        qgraph = replace(qgraph, rounds_once=rounding == "once")
    return normal, qgraph, integers, fitted, meaning


def _quantised(normal: Normalised, samples: NDArray[np.float32]) -> tuple[QGraph, Weights]:
    """The network of real numbers in integers."""
    names = [name for name, _ in normal.graph.tensors]
    integers, quants = "integers/", "quants"

    def make() -> dict[str, NDArray[Any]]:
        qgraph, weights = quantize(normal.graph, normal.weights, samples)
        pairs = np.array([[qgraph.quant[name].scale, qgraph.quant[name].zero] for name in names], np.float64)
        return {quants: pairs, **{integers + name: array for name, array in weights.items()}}

    found = cache.kept("quantised", (normal.graph, normal.weights, samples), make)
    quant = {name: Quant(float(scale), int(zero)) for name, (scale, zero) in zip(names, found[quants], strict=True)}
    weights = {name.removeprefix(integers): array for name, array in found.items() if name != quants}
    return QGraph(normal.graph, tuple(quant.items())), weights


def _collected(
    normal: Normalised, dataset: Dataset, meaning: Scaling, epochs: int, seed: int, progress: Progress
) -> tuple[dict[str, GradientNorms], NDArray[np.float32]]:
    """(norms by layer, head) of the preliminary fine-tuning."""

    def make() -> dict[str, NDArray[Any]]:
        made = collect(
            normal.graph,
            normal.weights,
            meaning.real(dataset.x_train),
            dataset.y_train,
            outputs=dataset.outputs,
            epochs=epochs,
            seed=seed,
            progress=lambda done, total: progress("rank", done, total),
        )
        norms = {f"norms/{name}": np.array([norm.layer, norm.channels]) for name, norm in made.norms.items()}
        return {**norms, "head": made.head_weight}

    data = (dataset.x_train, dataset.y_train, dataset.outputs, meaning)
    found = cache.kept("ranking", (normal.graph, normal.weights, *data, epochs, seed), make)
    head = np.asarray(found["head"], np.float32)
    pairs = {name.removeprefix("norms/"): pair.tolist() for name, pair in found.items() if name != "head"}
    return {node.name: GradientNorms(*pairs[node.name]) for node in normal.graph if node.name in pairs}, head


def make_ranking(
    normal: Normalised, dataset: Dataset, meaning: Scaling, options: Options, progress: Progress
) -> tuple[Ranking, NDArray[np.float32]]:
    """(ranking, head of the preliminary fine-tuning); stored ones are reused.

    Where a ranking's head is not stored beside it, or was trained on something else, one epoch makes another.
    """
    stored = None
    if options.ranking is not None:
        stored = Ranking.from_json(artefact.read_json(options.ranking), normal.graph)
        head = _stored_head(options.ranking, stored, normal, dataset)
        if head is not None:
            return stored, head
    epochs = options.rank_epochs if stored is None else 1
    norms, head = _collected(normal, dataset, meaning, epochs, options.seed, progress)
    if stored is not None:
        return stored, head
    made = provenance(dataset, normal.weights, options.rank_epochs, options.seed)
    return rank(normal.graph, dataset.name, norms, made), head


def _stored_head(path: Path, ranking: Ranking, normal: Normalised, dataset: Dataset) -> NDArray[np.float32] | None:
    """The head beside a ranking that was made from this network and these data. Raises ArtefactError."""
    beside, made = path.with_suffix(".npz"), ranking.made
    if made is None or not beside.exists() or made != provenance(dataset, normal.weights, made.epochs, made.seed):
        return None
    head = artefact.read_arrays(beside).get("head")
    wanted = (dataset.outputs, elements(normal.graph.shapes[normal.graph.output]))
    if head is None or head.shape != wanted or head.dtype != np.float32 or not np.isfinite(head).all():
        raise ArtefactError(f"'{beside}' holds no head of {wanted}.", "Remove it, or make the ranking again.")
    return head


def make_head(
    normal: Normalised, quantised: tuple[QGraph, Weights], dataset: Dataset, meaning: Scaling, choice: str
) -> Head:
    """A head of zeros, or the pretrained last layer. Raises DataError when its outputs do not fit."""
    start = pretrained(normal, dataset) if choice == "keep" else None
    loss = classes_loss(dataset.outputs)
    if dataset.regression:
        loss = squared_loss(dataset.outputs, _largest_error(start, quantised, dataset, meaning))
    return new_head(loss) if start is None else kept_head(*start, loss)


def pretrained(normal: Normalised, dataset: Dataset) -> Classifier:
    """The classifier that a head starts from. Raises DataError where there is none, or its outputs do not fit.

    A single output behind a sigmoid is the difference of the logits of two classes.
    """
    ending = normal.ending
    if normal.classifier is None:
        raise DataError(f"{ending.keeps}.", "Use --head new.")
    if dataset.regression and ending.link:
        raise DataError(
            f"the pretrained outputs pass a {ending.link}, and squared error is taken in front of it.",
            "Use --head new.",
        )
    weight, bias = normal.classifier
    if ending.link == "sigmoid" and len(bias) == 1 and dataset.outputs == 2:
        half_weight, half_bias = weight * np.float32(0.5), bias * np.float32(0.5)
        return np.concatenate([-half_weight, half_weight]), np.concatenate([-half_bias, half_bias])
    if len(bias) != dataset.outputs:
        raise DataError(
            f"the pretrained last layer has {len(bias)} outputs, '{dataset.name}' wants {dataset.outputs}.",
            "Use --head new.",
        )
    return weight, bias


def _largest_error(
    start: Classifier | None, quantised: tuple[QGraph, Weights], dataset: Dataset, meaning: Scaling
) -> float:
    """Of the head at the start, over the calibration samples; its features are those of the integers."""
    order = epoch_order(0, 0, len(dataset.x_train))[:CALIBRATION]
    targets = dataset.y_train[order]
    if start is None:
        return float(np.abs(targets).max())
    qgraph, integers = quantised
    steps = reference(qgraph, integers, meaning.int8(dataset.x_train[order], input_quant(qgraph)))
    quant = qgraph.quant[qgraph.graph.output]
    outputs = (steps.astype(np.float64) - quant.zero) * quant.scale @ start[0].T + start[1]
    return float(np.abs(outputs - targets).max())


@dataclass(frozen=True)
class Stages:
    """What is made in front of a plan, whatever the memory."""

    imported: Imported
    normal: Normalised
    qgraph: QGraph
    integers: Weights
    ranking: Ranking
    trained_head: NDArray[np.float32]
    """Of the preliminary fine-tuning, (outputs, features)."""

    def write(self, out: Path) -> None:
        """Leaves what every one of these stages leaves."""
        imported, normal, qgraph = self.imported, self.normal, self.qgraph
        _write(out, "01_import", to_json(imported.graph, {"notes": list(imported.notes)}), imported.weights)
        head = "head"
        while any(node.name == head for node in normal.graph):
            head += "_"
        whole = dict(normal.weights)
        if normal.classifier is not None:
            whole |= zip((f"{head}.weight", f"{head}.bias"), normal.classifier, strict=True)
        _write(out, "02_normalised", to_json(normal.graph), whole)
        quants = {name: [q.scale, q.zero] for name, q in qgraph.quants}
        numbers = {"quant": quants, "rounds_once": qgraph.rounds_once}
        _write(out, "03_quantised", to_json(qgraph.graph, numbers), self.integers)
        _write(out, "04_ranking", self.ranking.to_json(), {"head": self.trained_head})

    @property
    def input_shape(self) -> Shape:
        """(H, W, C) of a sample."""
        return self.normal.graph.shapes[self.normal.graph.input]

    @contextmanager
    def kept(self, out: Path | None) -> Iterator[None]:
        """Where a refused plan leaves these stages, unless the folder holds a compiled model already."""
        try:
            yield
        except (BudgetError, DataError) as error:
            if out is None or (out / "model.json").exists():
                raise
            self.write(out)
            hint = f"The ranking is kept: --ranking {out / '04_ranking.json'} saves making it again."
            raise type(error)(error.what, f"{error.remedy} {hint}") from error


@dataclass(frozen=True)
class Material(Stages):
    """What a plan is made from: a quantised network, its ranking, its head and the samples that set its exponents."""

    trainable: Ranking
    """Without the layers that a step is too short for."""
    head: Head
    calibration: Calibration
    meaning: Scaling
    selecting: Selecting

    def network(self) -> Network:
        """For the planner; one that is kept remembers what it laid out."""
        return Network(self.qgraph, self.integers, self.head.loss, Planner())

    def plan(self, limits: Limits, network: Network | None = None) -> Plan:
        """A plan within some limits. Raises BudgetError when the memory does not suffice."""
        parts = (self.qgraph, self.integers, self.trainable, self.head)
        return make_plan(*parts, self.limits(limits), self.calibration, network=network)

    def limits(self, limits: Limits) -> Limits:
        """With the strategy's way of selecting, unless they bring one."""
        return limits if limits.selecting is not DRAWN else replace(limits, selecting=self.selecting)


def check_packages(model: Path) -> None:
    """Raises ModelError for an unknown format, ToolchainError when a package is missing that a stage needs."""
    frontends.check(model)
    require("calibration", "torch")


def load_one(model: Path, output: str) -> Imported:
    """A model up to the output that is trained. Raises ModelError where there are several and none is named."""
    imported = frontends.load(model, output)
    if len(imported.outputs) > 1 and not output:
        names = ", ".join(f"'{name}'" for name in imported.outputs)
        raise ModelError(f"'{model}' has {len(imported.outputs)} outputs: {names}.", "Name one with --output.")
    return imported


def gather(model: Path, dataset: Dataset, options: Options, progress: Progress, out: Path | None = None) -> Material:
    """All stages up to what the planner needs; where that is refused, `out` keeps the ranking and what is before it.

    Raises what `check_packages` raises, before anything else.
    """
    check_packages(model)
    progress("import", 0, 1)
    imported = load_one(model, options.output)
    normal, qgraph, integers, dataset, meaning = prepare(imported, dataset, options.pixels, options.rounding)
    ranking, trained = make_ranking(normal, dataset, meaning, options, progress)
    stages = (imported, normal, qgraph, integers, ranking, trained)
    with Stages(*stages).kept(out):
        order = epoch_order(1, 0, len(dataset.x_train))[:CALIBRATION_SAMPLES]
        samples = meaning.int8(dataset.x_train[order], input_quant(qgraph))
        kept = options.head == "keep"
        at_start = pretrained(normal, dataset) if kept else (trained, np.zeros(len(trained), np.float32))
        calibration = (samples, dataset.y_train[order], at_start)
        head = make_head(normal, (qgraph, integers), dataset, meaning, options.head)
        network = (normal.graph, normal.weights)
        chosen, trainable, limits = find_strategy(options.strategy), ranking, options.limits
        if limits.step_instructions and isinstance(chosen.rule, Sampled):
            effort = Effort(qgraph.graph, head.loss.outputs, limits.grad_bits, limits.batch)
            trainable = affordable(ranking, effort, limits.step_instructions)
        selecting = on_device(chosen, options.settings, network, trainable, limits, options.seed)
        return Material(*stages, trainable, head, calibration, meaning, selecting)


def warnings(dataset: Dataset, layers: int) -> list[str]:
    """What is likely to be a mistake in the data, and that a network has no layers to train."""
    alone = "the network has no layer to train but its last: the head alone is trained"
    return [*dataset.warnings(), *(() if layers else (alone,))]


def about_ending(normal: Normalised, dataset: Dataset) -> Iterator[str]:
    """What the head does not take over of the network's end."""
    ending = normal.ending
    told = ending.describe()
    if told:
        yield told
    if dataset.regression and ending.link:
        yield f"targets are those of the outputs in front of the {ending.link}, which the trained network lacks"
    if not dataset.regression and ending.clamp is not None and not ending.keeps:
        yield f"the clamp behind '{ending.classifier.name if ending.classifier else ''}' is left out: classes need none"
    if not dataset.regression and ending.link == "sigmoid" and dataset.outputs != 2:
        yield "each sample has one class: the trained network ends in a softmax over them, not in sigmoids"


def affordable(ranking: Ranking, effort: Effort, most: int) -> Ranking:
    """The layers that a step of so many instructions can train a channel of. Raises BudgetError."""
    kept = tuple(score for score in ranking.scores if effort.least(score.layer) <= most)
    if not kept and ranking.scores:
        least = min(effort.least(score.layer) for score in ranking.scores)
        raise BudgetError(
            f"{most:,} instructions are too few for a step: {effort.base_instructions:,} with the head alone, "
            f"{least:,} with one channel of the nearest layer.",
            "Raise --max-step-instructions, or train with `run --head-only`.",
        )
    return replace(ranking, scores=kept)


def compile_model(
    model: Path,
    dataset: Dataset,
    options: Options,
    out: Path,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda _: None,
    *,
    keep: bool = True,
) -> tuple[Plan, Image]:
    """All stages up to a built image in `out`. Raises BudgetError when its static data or stack pass the reserves.

    `tell` is told of files of others in `out/project` that were in the way. Raises ArtefactError for such a model.json.
    `keep`: where a plan is refused, `out` keeps its ranking.
    """
    check_tools(options.target, options.builder)
    check_own(out / "model.json")
    kept = out if keep else None
    made = gather(model, dataset, options, progress, kept)
    network, limits = made.network(), options.limits
    is_pixels = dataset.x_train.dtype == np.uint8
    header = Data(dataset.classes, made.meaning, is_pixels, len(dataset.x_train))
    for number in range(ROUNDS):
        progress("plan", 0, 1)
        with made.kept(kept):
            plan = made.plan(limits, network)
        if number == 0:
            made.write(out)
        artefact.write_json(out / "05_plan.json", plan.to_json())
        progress("build", 0, 1)
        image, flash, banks = _build(plan, options, out, header, tell)
        fits = reserves_suffice(limits, image)
        if not options.tight or (fits and number > 0):
            break
        limits = _needed(image, replace(limits, stack_bytes=0, static_bytes=0) if number == 0 else limits)
    if not fits:
        raise _passes_reserves(plan.limits, image)
    quant = input_quant(plan.qgraph)
    artefact.write_json(
        out / "model.json",
        {
            "network": plan.qgraph.graph.name,
            "digest": plan.digest,
            "target": options.target,
            "strategy": options.strategy,
            "app": options.app,
            "prefix": options.prefix,
            "config": config(plan),
            "image": str(image.path.relative_to(out)),
            "static_bytes": image.static_bytes,
            "stack_bound_bytes": image.stack_bytes,
            "flash_bytes": image.flash_bytes,
            "flash_runs": [list(run) for run in flash.runs],
            "flash_unit_bytes": flash.unit_bytes,
            "pixels": [made.meaning.gain, made.meaning.offset],
            "split": options.split,
            "input": [quant.scale, quant.zero],
            "input_shape": list(plan.qgraph.graph.shapes[plan.qgraph.graph.input]),
            "classes": list(dataset.classes),
            "outputs": plan.head.classes if plan.head else 0,
            "data": dataset.name,
            "board": None if options.board is None else options.board.name,
            "banks": None if banks is None else banks.to_json(),
        },
    )
    for text in (
        *remarks(simplify(made.imported), dataset.check(made.input_shape), options.pixels),
        *about_ending(made.normal, dataset),
        *(note for note in made.imported.notes if "at the end is left out" in note),
    ):
        tell(text)
    return plan, image


def _build(
    plan: Plan, options: Options, out: Path, header: Data, tell: Callable[[str], None]
) -> tuple[Image, BankFlash, Reservation | None]:
    """(image, sectors of the banks, where they lie on the board); built anew if its size moves the banks."""
    (out / "model.json").unlink(missing_ok=True)  # the old image must not run under the new plan
    project = out / "project"
    banks = bank_sectors(plan, options.board)
    while True:  # twice at most: the banks do not change the image's size
        reserved = options.flash if banks is None else banks.flash
        board = options.board
        flash = write_project(
            plan,
            project,
            options.board_ram_bytes,
            reserved,
            tell,
            options.link_key,
            options.prefix,
            options.kernels,
            Placed(board, banks) if board is not None and board.is_real else None,
            options.app,
            header,
        )
        image = build(plan, project, options.target, options.builder)
        measured = bank_sectors(plan, options.board, image.flash_bytes) if image.flash_bytes else banks
        if measured is None or measured.flash == flash:
            return image, flash, measured
        banks = measured


def _passes_reserves(limits: Limits, image: Image) -> BudgetError:
    stack = image.stack_bytes or 0
    if image.static_bytes > limits.static_bytes:
        what = f"static data takes {image.static_bytes:,} B, {limits.static_bytes:,} B are reserved."
        return BudgetError(what, "Give --stack bound: a second plan reserves what the image needs.")
    what = f"the stack takes up to {stack:,} B, {limits.stack_bytes:,} B are reserved."
    return BudgetError(what, f"Give --stack {ledger.align(stack, 8)}, or --stack bound.")


def _needed(image: Image, least: Limits) -> Limits:
    """Reserves of what an image needs, or `least`. Raises DataError where nothing tells."""
    if image.stack_bytes is None:
        raise DataError(
            f"the stack of a program for '{image.target}' cannot be bounded.",
            "Compile for a board with gcc, or give --stack BYTES.",
        )
    stack, static = ledger.align(image.stack_bytes, 8), ledger.align(image.static_bytes, 8)
    return replace(least, stack_bytes=max(stack, least.stack_bytes), static_bytes=max(static, least.static_bytes))


def bank_sectors(plan: Plan, board: Board | None, image: int | None = None) -> Reservation | None:
    """Sectors of a board for the banks, beside an image of so many bytes, or of those that it is estimated to take.

    None without a board, or where no bank is written. Raises BudgetError when they do not fit.
    """
    if board is None or plan.weights_in_ram:
        return None
    return reserve(board, plan.generation_bytes, image_bytes(plan) if image is None else image)
