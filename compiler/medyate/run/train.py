# SPDX-License-Identifier: Apache-2.0
"""A run from start to end: finds a rate, trains epoch by epoch, measures the target's memory, writes the run log."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.boards import MACHINES, TARGETS
from medyate.build.project import APP
from medyate.compiled import load_compiled
from medyate.datasets import Dataset, Scaling, epoch_order
from medyate.emit.emitter import ABI
from medyate.errors import DataError, LinkError
from medyate.ir import Quant
from medyate.plan.banks import BankFlash, Run
from medyate.run import early, held
from medyate.run import guard as guarded
from medyate.run.early import EarlyStop, HeldOut
from medyate.run.feed import Parts, Progress, Tick, evaluate, logit_range, train_epoch
from medyate.run.generation import FORMAT
from medyate.run.guard import Guard, Outcome, Rejected
from medyate.run.link import Link
from medyate.run.log import HEAD_ONLY, RunLog, Score, training_of
from medyate.run.restart import Restarts
from medyate.run.session import SELF_TEST, Marks, Position, Session, Training
from medyate.run.signs import know, signs
from medyate.run.transport import BAUD, HostProgram, QemuProgram, SerialPort
from medyate.run.trials import Bench, Found, HeadOnly

PATTERNS = (0xA5, 0x5A)
GUARD_ORDER = 0xFFFFFFFF
"""Number of the epoch whose order of samples gives the guard's: no training reaches it."""
RANGE_SAMPLES = 32
"""Training samples whose logits give the range of an exported head."""


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
    any_image: bool = False,
    baud: int = BAUD,
    key: bytes | None = None,
    plugin: str = "",
) -> Iterator[Session]:
    """A session with the compiled image, or with whatever runs there: 'host', 'qemu' or 'serial:PORT'.

    `plugin`: of QEMU, with its arguments.
    """
    target = check_target(compiled, on)
    if on.startswith("serial:"):
        opened: HostProgram | QemuProgram | SerialPort = SerialPort(on.removeprefix("serial:"), baud)
    elif on == "host":
        opened = HostProgram(compiled.image, flash)
    else:
        opened = QemuProgram(compiled.image, target, flash, count_instructions=count, plugin=plugin)
    with opened as transport, _greeted(transport, None if any_image else int(compiled.model["digest"]), key) as session:
        yield session


def check_target(compiled: Compiled, on: str) -> str:
    """The target that was compiled for. Raises LinkError where its image cannot run there."""
    target, app = str(compiled.model["target"]), compiled.model.get("app", APP)
    if app != APP:
        raise LinkError(
            f"the image holds the application {app}, which speaks to no host.", f"Compile with --app {APP}."
        )
    if not (on.startswith("serial:") or (on, target) == ("host", "host") or (on == "qemu" and target in MACHINES)):
        raise LinkError(
            f"the image was compiled for {target}, it cannot run on '{on}'.",
            f"Compile it for one of {', '.join(TARGETS)} and give --on host, qemu or serial:PORT.",
        )
    return target


@contextmanager
def connect_image(image: Path, target: str, digest: int, flash: Path, *, count: bool = False) -> Iterator[Session]:
    """A session with an image on the machine that it was built for: this one, or QEMU's."""
    host = target == "host"
    opened = HostProgram(image, flash) if host else QemuProgram(image, target, flash, count_instructions=count)
    with opened as transport, _greeted(transport, digest) as session:
        yield session


@contextmanager
def _greeted(transport: Any, digest: int | None, key: bytes | None = None) -> Iterator[Session]:
    session = Session(Link(transport, bytes_per_second=transport.bytes_per_second), key)
    if digest is not None and (session.hello.abi != ABI or session.hello.digest != digest):
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
    """Rate and clip follow from trials."""
    find_flip: bool = False
    """With that: flips are used where trials show that they do no harm."""
    guard: bool = False
    """An epoch that made the network worse is not committed, and the training ends."""
    early_stop: int | None = None
    """So many epochs that brought nothing on samples held out end the training, and its best epoch is kept."""
    measure: bool = True
    count: bool = True
    overwrite: bool = False
    """A fresh training may discard what the flash holds."""
    go_on: bool = True
    """When the target restarts; otherwise that ends the run."""
    baud: int = BAUD
    """Of a serial port."""
    key: bytes | None = None
    """That the image was compiled with."""
    earlier: Mapping[str, Any] | None = None
    """The log that a resumed run continues."""
    head_only_accuracy: float | None = None
    """What training the head alone gave, where that is known."""
    keep: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Is given the log after each epoch, so that no end of the program loses it."""
    tell: Callable[[str], None] = lambda _: None
    """Is told at once what a resumed run found in flash, and what rate was found."""


def _look(compiled: Compiled, options: RunOptions) -> tuple[held.Held, ...]:
    """What the flash file holds; removes it for a fresh training. Raises DataError where that would lose something."""
    if options.on.startswith("serial:"):
        return ()
    image, digest = held.read_image(options.flash, compiled.flash), int(compiled.model["digest"])
    found = held.find(image)
    if options.training.fresh:
        if not options.overwrite:
            held.refuse_to_discard(f"'{options.flash}'", found, digest)
        options.flash.unlink(missing_ok=True)
    elif not held.fits(image, compiled.flash):
        held.refuse_stranger(found, digest)
        raise DataError(f"'{options.flash}' is of other sectors than the image.", "Give another --flash.")
    return found


def _keep_what_is_there(session: Session, options: RunOptions, digest: int) -> None:
    """Raises DataError where a fresh training would lose a board's generation unasked."""
    if options.training.fresh and not options.overwrite and options.on.startswith("serial:"):
        there = session.begin(replace(options.training, fresh=False))
        if there.is_used and there.settings != SELF_TEST.settings():
            board = (held.Held(there.generation, there.epochs, digest, FORMAT),)
            held.refuse_to_discard("the target's flash", board, digest)


def _begin(session: Session, compiled: Compiled, options: RunOptions, found: tuple[held.Held, ...]) -> Position:
    """Starts or resumes. Raises DataError where that goes on with other settings, or a stranger's flash is at hand."""
    training, digest = options.training, int(compiled.model["digest"])
    position = session.begin(training)
    if not training.fresh:
        if not position.is_used:
            held.refuse_stranger(found, digest)
        options.tell(position.start())
    _check_resumed(training, position, options.earlier)
    _check_early_stop(position, options)
    return position


def _check_early_stop(position: Position, options: RunOptions) -> None:
    """Raises DataError where a training goes on that was begun with another early stop, or whose log is not there."""
    earlier = options.earlier or {}
    if position.epochs == 0:
        return
    if earlier and earlier.get("early_stop") != options.early_stop:
        begun = earlier.get("early_stop")
        how = "without --early-stop" if begun is None else f"with --early-stop {begun}"
        raise DataError(f"the training in flash was begun {how}.", "Resume with the same options.")
    history = earlier.get("history")
    if options.early_stop is not None and (not history or history[0]["epoch"] != 1):
        raise DataError(
            "--early-stop needs the log of the whole training that it goes on with.", "Give its log with --log."
        )
    if earlier.get("kept_epoch") is not None and earlier["finished"]:
        raise DataError(
            f"the training was ended early; epoch {earlier['kept_epoch']} was kept.", "Train anew with --fresh."
        )


def _check_resumed(training: Training, position: Position, earlier: Mapping[str, Any] | None) -> None:
    """Raises DataError when the device goes on with other settings than were asked for, or is done."""
    if position.settings != training.settings():
        raise DataError(
            f"the training in flash was begun with other settings (seed, rate, clip, schedule, epochs, limit, flips, "
            f"moves, smoothing or head only): its rate is {position.settings.rate:.6g}, its clip "
            f"{position.settings.clip_norm:.6g}.",
            "Resume with the same options, or discard it with --fresh.",
        )
    if earlier is not None and (logged := training_of(earlier)).settings() != position.settings:
        raise DataError(
            f"the run log is of another training (seed {logged.seed}, rate {logged.rate:.6g} ...).",
            "Give that of the one in flash with --log, or another name.",
        )
    if position.epochs >= training.epochs and (earlier is None or earlier.get("finished", True)):
        raise DataError(f"all {training.epochs} epochs are done already.", "Train anew with --fresh.")


def epoch_samples(dataset: Dataset, limit: int | None, early_stop: int | None = None) -> int:
    """Training samples of one epoch. Raises DataError where an early stop has too few to hold some out."""
    count = len(dataset.x_train)
    count -= 0 if early_stop is None else early.held_samples(count)
    return min(limit or count, count)


def run(compiled: Compiled, dataset: Dataset, options: RunOptions, progress: Progress) -> dict[str, Any]:
    """Trains and evaluates; returns the run log.

    Raises DataError rather than discard a generation unasked. A KeyboardInterrupt says after which epoch it came.
    """
    x_train, x_test = int8_samples(compiled, dataset)
    dataset = dataset.with_targets(Scaling(*compiled.model["pixels"]))
    parts, held_out = Parts(x_train, dataset.y_train, x_test, dataset.y_test), None
    if options.early_stop is not None:
        parts, held_out = early.split(parts, options.training.seed)
    if compiled.weights_in_ram and not options.training.fresh:
        raise DataError("this model keeps its weights in RAM: no training outlives its program.", "Start afresh.")
    check_target(compiled, options.on)
    known = know(compiled.folder, compiled.model, compiled.plan, len(x_test))
    found = _look(compiled, options)
    line = partial(connect, count=options.count, baud=options.baud, key=options.key)
    with line(compiled, options.on, options.flash) as session:
        if options.measure:
            session.check_access()  # memory is measured last
        _keep_what_is_there(session, options, int(compiled.model["digest"]))
        options, tried = _with_rate(session, compiled, parts, options, progress)
        position = _begin(session, compiled, options, found)
        restarts = Restarts(session, options.training, options.go_on, options.tell)
        look = partial(evaluate, session, parts.x_test, parts.y_test)
        before = restarts.survive(lambda: look("before", progress))
        facts = _facts(compiled, options, tried, len(x_test))
        log = RunLog.begin(facts, options.training, options.keep, before, options.earlier, position.epochs)
        try:
            stop = None if held_out is None else _early_stop(session, held_out, options, progress)
            moved = _learn(session, parts, options, log, stop, restarts, progress)
            if moved or log.after is None:
                log.after = restarts.survive(lambda: look("accepted", progress))
            digest = str(session.digests())
            worn = session.position
            logits = restarts.survive(lambda: logit_range(session, parts.x_train[:RANGE_SAMPLES], progress))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(log.stopped()) from None
    ended: dict[str, Any] = {"digest": digest, "logit_range": logits}
    steps, times = log.instructions, log.milliseconds
    ended |= _answers(log.after, parts)
    ended["flash"] = None if compiled.weights_in_ram else _flash(compiled, options, position, worn)
    ended["instructions_per_step"] = round(statistics.mean(steps)) if any(steps) else None
    ended["instructions_per_step_max"] = max(steps, default=0) or None
    ended["ms_per_step"] = round(statistics.mean(times), 3) if any(times) else None
    ended["ms_per_step_max"] = round(max(times, default=0.0), 3) or None
    ended["warnings"] = [sign.to_json() for sign in signs(log.content(), known)]
    options.keep(log.content(**ended))
    if options.measure:
        try:
            ended.update(_memory(compiled, measure(compiled, options.on, x_train[0], options.key)))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped after the last epoch, while the memory was measured") from None
    return log.content(**ended)


@dataclass(frozen=True)
class Tried:
    """What trials on the target gave."""

    found: Found
    head: HeadOnly | None
    """None where nothing but the head is trained."""


def _with_rate(
    session: Session, compiled: Compiled, parts: Parts, options: RunOptions, progress: Progress
) -> tuple[RunOptions, Tried | None]:
    """The options with rate and clip, where they were left open: those in flash, or what trials find."""
    if not options.find_rate:
        return options, None
    if not options.training.fresh:
        there = session.begin(options.training)
        if there.is_used:
            settings = there.settings
            flip = settings.flip if options.find_flip else options.training.flip
            same = replace(options.training, rate=settings.rate, clip=settings.clip_norm, flip=flip)
            return replace(options, training=same), None
    training = options.training
    fixed = training.head_only or _is_head_alone(compiled)
    asked = replace(training, head_only=fixed)
    batch = int(compiled.plan["batch"])
    head_alone = not fixed and options.head_only_accuracy is None

    def show(done: int, total: int, loss: float) -> None:
        progress(Tick("trying rates", done, total, loss, 0.0))

    height, width, _ = compiled.model["input_shape"]
    ask_flips = options.find_flip and min(height, width) > 1
    bench = Bench(session, asked, parts.x_train, parts.y_train, batch, options.go_on, show, ask_flips)
    options.tell(bench.cost(head=head_alone))
    found = bench.find()
    options.tell(found.text())
    head = None
    if head_alone:
        head = bench.head_alone(lambda: evaluate(session, parts.x_test, parts.y_test, "head alone", progress))
    recipe = replace(training, rate=found.rate, clip=found.clip, flip=training.flip or found.flip)
    return replace(options, training=recipe), Tried(found, head)


def _is_head_alone(compiled: Compiled) -> bool:
    """Whether the model trains nothing but its head."""
    return not compiled.plan["candidates"] and not compiled.plan["biases"]


def _guard(session: Session, parts: Parts, options: RunOptions, log: RunLog, progress: Progress) -> Guard:
    """Judges by training samples: it sees a network that breaks, and says nothing of one that learns by heart."""
    count = min(guarded.SAMPLES, options.training.epoch_samples)
    chosen = epoch_order(options.training.seed, GUARD_ORDER, len(parts.x_train))[:count]
    samples, labels = parts.x_train[chosen], parts.y_train[chosen]

    def look() -> Outcome:
        results = []
        for number, (sample, label) in enumerate(zip(samples, labels, strict=True)):
            results.append(session.infer(sample, label))
            progress(Tick("guard", number + 1, count, results[-1].loss, 0.0))
        right = np.array([r.prediction for r in results]) == labels if labels.ndim == 1 else None
        return Outcome(right, np.array([r.loss for r in results]))

    return Guard.begin(look, log.guard_start)


def _early_stop(session: Session, held_out: HeldOut, options: RunOptions, progress: Progress) -> EarlyStop:
    look = partial(evaluate, session, held_out.samples, held_out.labels, "held out", progress)
    return EarlyStop(options.early_stop or 0, look)


def _learn(
    session: Session,
    parts: Parts,
    options: RunOptions,
    log: RunLog,
    stop: EarlyStop | None,
    restarts: Restarts,
    progress: Progress,
) -> bool:
    """Trains, and leaves the generation that stays; whether the target was put back to it."""
    moved = False
    if log.kept_epoch is None:  # else an interrupted run had come to the end of its training
        guard = None
        if options.guard:
            guard = restarts.survive(lambda: _guard(session, parts, options, log, progress))
            log.guard_start = guard.start
        rejected = _train(session, parts, options, log, guard, stop, restarts, progress)
        if rejected is not None:
            options.tell(f"epoch {rejected.epoch} is not accepted: {rejected.text}; {_kept(session, options)}")
            log.rejected, moved = asdict(rejected), True
        if stop is not None and log.history:
            log.ended(early.best_epoch(log.history))
    last = int(log.history[-1]["epoch"]) if log.history else 0
    if log.kept_epoch is not None and {last, session.position.epochs} != {log.kept_epoch}:
        options.tell(early.text(log))
        early.go_back(session, parts, log, restarts, progress)
        moved = True
    return moved


def _kept(session: Session, options: RunOptions) -> str:
    """Puts the target back to the accepted generation; what that is, in words."""
    position = session.begin(replace(options.training, fresh=False))
    if position.is_used:
        return f"generation {position.generation} of bank {position.bank} stays, after {position.epochs} epochs"
    return "the factory weights stay"


def _train(
    session: Session,
    parts: Parts,
    options: RunOptions,
    log: RunLog,
    guard: Guard | None,
    stop: EarlyStop | None,
    restarts: Restarts,
    progress: Progress,
) -> Rejected | None:
    """The epochs that are left, each judged, committed, evaluated and logged; the first rejected one is the last.

    So is the one at which the early stop gives up, which is not committed either.
    """
    training = log.training
    saturated = 0  # the device counts since `begin`, the log per epoch

    def learn(epoch: int) -> Rejected | None:
        """An epoch and its commit; begun anew where the target restarts."""
        nonlocal saturated
        entry = train_epoch(session, parts, training, epoch, log.efforts, progress)
        since = 0 if restarts.again() else saturated
        saturated, entry["saturations"] = entry["saturations"], entry["saturations"] - since
        rejected = None if guard is None else guard.reject(epoch + 1, last=epoch == training.epochs - 1)
        if rejected is None:
            log.trained(entry if stop is None else entry | stop.judge())
            if stop is None or not stop.drops(log):
                session.commit()
        return rejected

    for epoch in range(log.committed, training.epochs):
        rejected = restarts.survive(partial(learn, epoch), lambda: None)
        if rejected is not None or (stop is not None and stop.drops(log)):
            return rejected
        score: Score | None = None
        if options.evaluate_each or epoch == training.epochs - 1:
            test = partial(evaluate, session, parts.x_test, parts.y_test, f"test {epoch + 1}", progress)
            score = restarts.survive(test)
        log.evaluated(score)
    return None


def _facts(compiled: Compiled, options: RunOptions, tried: Tried | None, test_samples: int) -> dict[str, Any]:
    """What was chosen and planned, for the log."""
    plan, training = compiled.plan, options.training
    return {
        "network": plan["network"],
        "model_digest": compiled.model["digest"],
        "data": compiled.model["data"],
        "target": compiled.model["target"],
        "on": options.on,
        "seed": training.seed,
        "rate": training.rate,
        "clip": training.clip,
        "schedule": training.schedule,
        "flip": training.flip,
        "shift": training.shift,
        "smoothing": training.smoothing,
        "head_only": training.head_only,
        "planned_epochs": training.epochs,
        "epoch_samples": training.epoch_samples,
        "early_stop": options.early_stop,
        "test_samples": test_samples,
        **_head_facts(options, None if tried is None else tried.head),
        "rate_trials": [] if tried is None else [asdict(trial) for trial in tried.found.trials],
        "start_loss": None if tried is None else tried.found.start_loss,
        "ram_limit_bytes": plan["ram_limit_bytes"],
        "arena_planned_bytes": plan["arena_planned_bytes"],
        "workspace_bytes": plan["workspace_bytes"],
        "b_mem_bytes": plan["b_mem_bytes"],
        "b_mem_elements": plan["b_mem_elements"],
        "candidate_layers": len(plan["candidates"]),
        "trained_biases": sum(layer["count"] for layer in plan["biases"]),
        "batch": plan["batch"],
        "total_layers": plan["total_layers"],
        "weights": plan["weights"],
    }


def _head_facts(options: RunOptions, head: HeadOnly | None) -> dict[str, Any]:
    """What the head alone reached: in a run of its own, or in a shorter one before this training began."""
    if options.head_only_accuracy is not None:
        return dict(zip(HEAD_ONLY, (options.head_only_accuracy, None, None), strict=True))
    if head is not None:
        return dict(zip(HEAD_ONLY, (head.accuracy, head.loss, head.steps), strict=True))
    return {key: (options.earlier or {}).get(key) for key in HEAD_ONLY}


def _answers(after: Score, parts: Parts) -> dict[str, Any]:
    """Of every test sample its label and what was predicted at the end, where there are classes."""
    labels = parts.y_test.tolist() if parts.y_test.ndim == 1 else []
    return {"test_labels": labels, "test_predictions": list(after.predictions)}


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
