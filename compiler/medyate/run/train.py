# SPDX-License-Identifier: Apache-2.0
"""Feeds a target: evaluates, trains epoch by epoch, measures its memory, writes the run log."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.data import Dataset, Scaling, epoch_order
from medyate.emit.emitter import ABI
from medyate.errors import DataError, LinkError
from medyate.ir import Quant
from medyate.plan.banks import BankFlash, Run
from medyate.run.link import Link
from medyate.run.restart import Restarts
from medyate.run.session import Marks, Position, Session, Training
from medyate.run.transport import BAUD, MACHINES, HostProgram, QemuProgram, SerialPort
from medyate.run.trials import Trial, find
from medyate.stages import load_compiled

PATTERNS = (0xA5, 0x5A)
RANGE_SAMPLES = 32
"""Training samples whose logits give the range of an exported head."""


@dataclass(frozen=True)
class Tick:
    """Progress of a run, for whoever shows it."""

    phase: str
    done: int
    total: int
    loss: float
    accuracy: float
    epoch: int = 0
    """Epoch being trained, from 1; 0 while evaluating."""


Progress = Callable[[Tick], None]


@dataclass(frozen=True)
class Compiled:
    """A compiled model's folder and what it says."""

    folder: Path
    model: dict[str, Any]
    plan: dict[str, Any]

    @staticmethod
    def read(folder: Path) -> Compiled:
        """Raises ArtefactError when the folder was not compiled."""
        return Compiled(folder, *load_compiled(folder))

    @property
    def image(self) -> Path:
        """The program."""
        return self.folder / str(self.model["image"])

    @property
    def weights_in_ram(self) -> bool:
        """Nothing that is learned outlives the program."""
        return bool(self.plan["weights"] == "ram")

    @property
    def flash(self) -> BankFlash:
        """The sectors of the banks."""
        runs = tuple(Run(*run) for run in self.model["flash_runs"])
        return BankFlash(runs, int(self.model["flash_unit_bytes"]))


@contextmanager
def connect(
    compiled: Compiled,
    on: str,
    flash: Path,
    *,
    count: bool = True,
    baud: int = BAUD,
    key: bytes | None = None,
) -> Iterator[Session]:
    """A session with the compiled image: 'host', 'qemu' or 'serial:PORT'."""
    target = str(compiled.model["target"])
    if on.startswith("serial:"):
        opened: HostProgram | QemuProgram | SerialPort = SerialPort(on.removeprefix("serial:"), baud)
    elif on == "host" and target == "host":
        opened = HostProgram(compiled.image, flash)
    elif on == "qemu" and target in MACHINES:
        opened = QemuProgram(compiled.image, target, flash, count_instructions=count)
    else:
        raise LinkError(
            f"the image was compiled for {target}, it cannot run on '{on}'.",
            "Compile it for host, qemu-m4, qemu-m7 or qemu-m55 and give --on host, qemu or serial:PORT.",
        )
    with opened as transport, _greeted(transport, int(compiled.model["digest"]), key) as session:
        yield session


@contextmanager
def connect_image(image: Path, target: str, digest: int, flash: Path, *, count: bool = False) -> Iterator[Session]:
    """A session with an image on the machine that it was built for: this one, or QEMU's."""
    host = target == "host"
    opened = HostProgram(image, flash) if host else QemuProgram(image, target, flash, count_instructions=count)
    with opened as transport, _greeted(transport, digest) as session:
        yield session


@contextmanager
def _greeted(transport: Any, digest: int, key: bytes | None = None) -> Iterator[Session]:
    session = Session(Link(transport, bytes_per_second=transport.bytes_per_second), key)
    if session.hello.abi != ABI or session.hello.digest != digest:
        raise LinkError("the target runs another model.", "Flash the image that was just compiled.")
    yield session
    session.exit()


def int8_samples(compiled: Compiled, dataset: Dataset) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Training and test samples as the device takes them. Raises DataError when they do not fit."""
    dataset = dataset.check(tuple(compiled.model["input_shape"]))
    scaling = Scaling(*compiled.model["pixels"])
    dataset = dataset.with_targets(scaling)
    if dataset.outputs != compiled.model["outputs"] or dataset.regression != (not compiled.model["classes"]):
        raise DataError(
            f"'{dataset.name}' wants {dataset.outputs} outputs, the model has {compiled.model['outputs']}.",
            "Run with the data that the model was compiled for.",
        )
    quant = Quant(*compiled.model["input"])
    return scaling.int8(dataset.x_train, quant), scaling.int8(dataset.x_test, quant)


@dataclass(frozen=True)
class Score:
    """What an evaluation gave: share of right predictions, or None where vectors are to be hit; mean loss."""

    accuracy: float | None
    loss: float


def evaluate(
    session: Session, samples: NDArray[np.int8], labels: NDArray[Any], phase: str, progress: Progress
) -> Score:
    """Accuracy and loss over all samples, by the device's own inference."""
    right, loss = 0, 0.0
    for i, (sample, label) in enumerate(zip(samples, labels, strict=True)):
        result = session.infer(sample, label)
        right += labels.ndim == 1 and result.prediction == int(label)
        loss += result.loss
        progress(Tick(phase, i + 1, len(samples), loss / (i + 1), right / (i + 1)))
    return Score(right / len(samples) if labels.ndim == 1 else None, loss / len(samples))


def logit_range(session: Session, samples: NDArray[np.int8], progress: Progress) -> list[float]:
    """Smallest and largest logit over some samples: the range that an exported head needs."""
    low, high = 0.0, 0.0
    for i, sample in enumerate(samples):
        session.infer(sample)
        logits = session.logits() / 65536
        low, high = min(low, float(logits.min())), max(high, float(logits.max()))
        progress(Tick("logits", i + 1, len(samples), 0.0, 0.0))
    return [low, high]


def measure(compiled: Compiled, on: str, sample: NDArray[np.int8], key: bytes | None = None) -> Marks:
    """Memory marks from two paint patterns, with the selections that need most.

    A byte that happens to equal one pattern differs from the other. Two selections are forced: the
    one that fills the epoch region, and one that reaches the deepest candidate layer.
    """
    squared = not compiled.model["classes"]
    label: Any = np.zeros(int(compiled.model["outputs"])) if squared else 0
    worst = [c["worst"] for c in compiled.plan["candidates"]]
    deep = [1 if i == 0 else 0 for i in range(len(worst))]
    seen: list[Marks] = []
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        for pattern in PATTERNS:
            flash = Path(folder) / f"{pattern}.bin"
            with connect(compiled, on, flash, key=key) as session:
                session.begin(Training(0.01, 1, 2, "constant"), pattern)
                for counts in (worst, deep):
                    session.force(counts)
                    session.train(sample, label)
                session.infer(sample, label)
                session.commit()
                seen.append(session.marks())
    first, second = seen
    return Marks(
        max(first.planned, second.planned),
        max(first.epoch, second.epoch),
        max(first.state, second.state),
        max(first.stack, second.stack),
        first.static,
        first.link,
    )


@dataclass(frozen=True)
class RunOptions:
    """What the user chose for `run`."""

    on: str
    training: Training
    flash: Path
    limit: int | None = None
    evaluate_each: bool = True
    find_rate: bool = False
    """Rate and clip are those of the best trial."""
    measure: bool = True
    count: bool = True
    go_on: bool = True
    """When the target restarts; otherwise that ends the run."""
    baud: int = BAUD
    """Of a serial port."""
    key: bytes | None = None
    """That the image was compiled with."""
    history: tuple[dict[str, Any], ...] = ()
    """Epochs of the log that a resumed run continues."""
    tell: Callable[[str], None] = lambda _: None
    """Is told at once what a resumed run found in flash, and what rate was found."""


def _discard(flash: Path) -> None:
    """Removes an old flash file: it may be another model's, of another size. Raises DataError."""
    try:
        flash.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"'{flash}' cannot be a flash file: {error.strerror}.", "Give another --flash.") from error


def _check_resumed(training: Training, position: Position) -> None:
    """Raises DataError when the device goes on with other settings than were asked for, or is done."""
    if position.settings != training.settings():
        raise DataError(
            f"the training in flash was begun with other settings (seed, rate, clip, schedule, epochs, limit, flips or "
            f"head only): its rate is {position.settings.rate:.6g}, its clip {position.settings.clip_norm:.6g}.",
            "Resume with the same options, or start afresh without --resume.",
        )
    if position.epochs >= training.epochs:
        raise DataError(f"all {training.epochs} epochs are done already.", "Start afresh without --resume.")


def epoch_samples(dataset: Dataset, limit: int | None) -> int:
    """Training samples of one epoch."""
    return min(limit or len(dataset.x_train), len(dataset.x_train))


def run(compiled: Compiled, dataset: Dataset, options: RunOptions, progress: Progress) -> dict[str, Any]:
    """Trains and evaluates; returns the run log."""
    x_train, x_test = int8_samples(compiled, dataset)
    dataset = dataset.with_targets(Scaling(*compiled.model["pixels"]))
    training = options.training
    if compiled.weights_in_ram and not training.fresh:
        raise DataError("this model keeps its weights in RAM: no training outlives its program.", "Start afresh.")
    epochs: list[dict[str, Any]] = []
    instructions: list[int] = []
    if training.fresh and not options.on.startswith("serial"):
        _discard(options.flash)
    trials: tuple[Trial, ...] = ()
    line = partial(connect, count=options.count, baud=options.baud, key=options.key)
    with line(compiled, options.on, options.flash) as session:
        if options.find_rate:
            given = (session, training, x_train, dataset.y_train, int(compiled.plan["batch"]))
            trials = find(*given, lambda *at: progress(_trial_tick(*at)))
            training = replace(training, rate=trials[0].rate, clip=trials[0].clip)
            options.tell(f"rate {training.rate:g} and clip {training.clip:g} are the best of {len(trials)} trials")
        position = session.begin(training)
        if not training.fresh:
            options.tell(position.start())
        _check_resumed(training, position)
        restarts = Restarts(session, training, options.go_on, options.tell)
        before = restarts.survive(lambda: evaluate(session, x_test, dataset.y_test, "before", progress))
        first_epoch = position.epochs
        accuracy = before
        saturated = 0  # the device counts since `begin`, the log per epoch
        for epoch in range(first_epoch, training.epochs):
            order = epoch_order(training.seed, epoch, len(x_train))[: training.epoch_samples]
            work = (session, x_train, dataset.y_train, order, training, epoch, instructions, progress)
            log, restarted = _surviving_epoch(restarts, *work)
            saturated, log["saturations"] = log["saturations"], log["saturations"] - (0 if restarted else saturated)
            if options.evaluate_each or epoch == training.epochs - 1:
                test = partial(evaluate, session, x_test, dataset.y_test, f"test {epoch + 1}", progress)
                accuracy = restarts.survive(test)
                log["accuracy"], log["test_loss"] = accuracy.accuracy, accuracy.loss
            epochs.append(log)
        digests = session.digests()
        worn = session.position
        logits = restarts.survive(lambda: logit_range(session, x_train[:RANGE_SAMPLES], progress))
    earlier = [entry for entry in options.history if entry["epoch"] <= first_epoch]
    log = _log(compiled, replace(options, training=training), before, accuracy, [*earlier, *epochs])
    log["rate_trials"] = [asdict(trial) for trial in trials]
    log["digest"] = str(digests)
    log["logit_range"] = logits
    log["flash"] = None if compiled.weights_in_ram else _flash(compiled, options, position, worn)
    log["instructions_per_step"] = round(statistics.mean(instructions)) if any(instructions) else None
    log["instructions_per_step_max"] = max(instructions, default=0) or None
    if options.measure:
        log.update(_memory(compiled, measure(compiled, options.on, x_train[0], options.key)))
    return log


def _trial_tick(done: int, total: int, loss: float) -> Tick:
    return Tick("trying rates", done, total, loss, 0.0)


def _surviving_epoch(restarts: Restarts, session: Session, *given: Any) -> tuple[dict[str, Any], bool]:
    """An epoch and its commit, begun anew when the target restarts; its log, and whether it counts from anew since."""
    log: dict[str, Any] = {}

    def work() -> dict[str, Any]:
        log.update(_train_epoch(session, *given))
        session.commit()
        return log

    return restarts.survive(work, lambda: log), restarts.again()


def _train_epoch(
    session: Session,
    samples: NDArray[np.int8],
    labels: NDArray[Any],
    order: NDArray[np.int64],
    training: Training,
    epoch: int,
    instructions: list[int],
    progress: Progress,
) -> dict[str, Any]:
    selection = np.zeros(0, bool) if training.head_only else session.selection()
    loss, right, saturations = 0.0, 0, 0
    for i, index in enumerate(order):
        result = session.train(samples[index], labels[index])
        loss += result.loss
        right += labels.ndim == 1 and result.prediction == int(labels[index])
        saturations = result.saturations
        instructions.append(result.instructions)
        name = f"epoch {epoch + 1}/{training.epochs}"
        progress(Tick(name, i + 1, len(order), loss / (i + 1), right / (i + 1), epoch + 1))
    return {
        "epoch": epoch + 1,
        "loss": loss / len(order),
        "train_accuracy": right / len(order) if labels.ndim == 1 else None,
        "saturations": saturations,
        "selected": [int(c) for c in np.flatnonzero(selection)],
    }


def _log(
    compiled: Compiled, options: RunOptions, before: Score, after: Score, epochs: list[dict[str, Any]]
) -> dict[str, Any]:
    plan, training = compiled.plan, options.training
    return {
        "network": plan["network"],
        "data": compiled.model["data"],
        "target": compiled.model["target"],
        "on": options.on,
        "seed": training.seed,
        "rate": training.rate,
        "clip": training.clip,
        "schedule": training.schedule,
        "head_only": training.head_only,
        "epoch_samples": training.epoch_samples,
        "accuracy_before": before.accuracy,
        "accuracy_after": after.accuracy,
        "loss_before": before.loss,
        "loss_after": after.loss,
        "ram_limit_bytes": plan["ram_limit_bytes"],
        "arena_planned_bytes": plan["arena_planned_bytes"],
        "b_mem_bytes": plan["b_mem_bytes"],
        "b_mem_elements": plan["b_mem_elements"],
        "candidate_layers": len(plan["candidates"]),
        "trained_biases": sum(layer["count"] for layer in plan["biases"]),
        "batch": plan["batch"],
        "total_layers": plan["total_layers"],
        "epochs": len(epochs),
        "history": epochs,
    }


def _flash(compiled: Compiled, options: RunOptions, start: Position, worn: Position) -> dict[str, Any]:
    """What the banks held at the start, and how often sectors have been erased by now."""
    emulated = not options.on.startswith("serial:")
    return {
        "start": None if options.training.fresh else start.start(),
        "banks_at_start": [found.state for found in start.found],
        "bank_erases": [found.erases for found in worn.found],
        "sector_erases": compiled.flash.image_erases(options.flash.read_bytes()) if emulated else None,
    }


def _memory(compiled: Compiled, marks: Marks) -> dict[str, Any]:
    """The one honest number: .data + .bss (arena and link included) + deepest stack."""
    used = marks.static + marks.stack if marks.static else compiled.plan["arena_bytes"]
    return {
        "arena_measured_bytes": marks.planned + marks.epoch + marks.state,
        "planned_mark_bytes": marks.planned,
        "epoch_mark_bytes": marks.epoch,
        "state_mark_bytes": marks.state,
        "stack_bytes": marks.stack,
        "stack_bound_bytes": compiled.model["stack_bound_bytes"],
        "static_bytes": marks.static,
        "link_bytes": marks.link,
        "ram_used_bytes": used,
    }
