# SPDX-License-Identifier: Apache-2.0
"""The Python interface: networks, data, plans, programs, simulators and runs, on the stages that the commands use.

Keywords are the command line's options of the same names, with underscores: `medyate plan --help`, `compile`, `run`.
What takes a while shows a bar where standard error is a terminal, or calls `progress(phase, done, total)`. Every
error is a MedyateError.
"""

from __future__ import annotations

import html
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medyate import datasets, frontends
from medyate.compiled import COMPILE
from medyate.datasets import Dataset, Scaling
from medyate.errors import ArtefactError, DataError, MedyateError, ModelError
from medyate.export.command import export_trained
from medyate.figure import check_picture
from medyate.ir import Quant
from medyate.options import BuildOptions, PlanOptions
from medyate.planning import Pictures, plan_one
from medyate.progress import Bar
from medyate.recipe import CLIP, RATE, check_clip
from medyate.report.layers import describe
from medyate.report.memory_map import draw_plan
from medyate.report.page import check_page, write_page
from medyate.report.picture import draw_last_run
from medyate.report.plan import print_plan
from medyate.run.feed import Tick
from medyate.run.session import Session, Training
from medyate.run.train import Compiled, connect
from medyate.stages import Options, check_packages, compile_model
from medyate.terminal import errors, plain
from medyate.training import AUTO, FitOptions, fit

Progress = Callable[[str, int, int], None]


def load(model: str | Path | Any, example: Any = None) -> Network:
    """A network: a .tflite, .onnx or .pt2 file, or a torch.nn.Module with an example of its input, batch included.

    Raises ModelError for a file that cannot be read or is of no known format.
    """
    if isinstance(model, str | Path):
        path = Path(model)
        check_packages(path)
        if not path.is_file():
            raise ModelError(f"'{path}' is no file.", "Check the path.")
        return Network(path)
    return _exported(model, example)


def data(
    source: str | Path | Mapping[str, ArrayLike] | Sequence[Any] | Any,
    *,
    split: float = 0.25,
    seed: int = 0,
    name: str = "data",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """A data set.

    `source`: a folder of class folders, an .npz, or 'digits'; arrays by name as in an npz; tuples (x, y) or
    (x_train, y_train, x_test, y_test); or anything with a length that gives (sample, label) by number, such as a torch
    Dataset. `split`: share for testing where there is no split. `name`, `classes`: of arrays. Raises DataError.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str | Path):
        return datasets.load(str(source), split, seed)
    datasets.check_split(split)
    if isinstance(source, Mapping):
        arrays = {key: _array(key, value) for key, value in source.items()}
    elif isinstance(source, tuple) and len(source) in (2, 4):
        names = ("x", "y") if len(source) == 2 else ("x_train", "y_train", "x_test", "y_test")
        arrays = {key: _array(key, value) for key, value in zip(names, source, strict=True)}
    else:
        arrays = _gathered(source)
    if classes is not None:
        arrays["classes"] = np.asarray(classes)
    return datasets.of_arrays(name, arrays, split, seed)


@dataclass(frozen=True)
class Network:
    """A network that was loaded."""

    path: Path
    """Its file."""
    _keep: Any = field(default=None, repr=False, compare=False)
    """The folder of a file that was made for it."""

    def describe(self) -> dict[str, Any]:
        """Its layers, as `medyate inspect --json` prints them."""
        return describe(self.path)

    def plan(
        self, data: Any, *, ram: str | int | None = None, progress: Progress | None = None, **options: Any
    ) -> Plan:
        """Ranks and plans for some RAM and, if one is given, a `target`; nothing is built.

        `set`: of the strategy, a dict.
        Raises BudgetError when RAM or flash do not suffice, DataError for options and data that do not fit.
        """
        settings = options.pop("set", {})
        if not isinstance(settings, Mapping):
            raise DataError(f"set={settings!r} is no dict.", 'Give one, like {"k": 3}.')
        of_plan, of_build = _split_options(options, PlanOptions, BuildOptions)
        of_plan["set_"] = [f"{key}={value}" for key, value in settings.items()]
        planned = PlanOptions(ram=None if ram is None else str(ram), **of_plan)
        chosen = BuildOptions(**of_build).options(planned)
        dataset = _dataset(data, planned.split)
        with _shown(progress) as show:
            content = plan_one(self.path, dataset, chosen, Pictures(None, None), show)
        return Plan(self, dataset, chosen, content)


@dataclass(frozen=True)
class Plan:
    """What takes how many bytes, before anything is built."""

    network: Network
    data: Dataset
    options: Options
    content: Mapping[str, Any] = field(repr=False)
    """As `medyate plan --json` prints it."""

    def __str__(self) -> str:
        text = io.StringIO()
        print_plan(dict(self.content), plain(file=text, soft_wrap=False))
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        return _pictured(self.save, html.escape(str(self)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is likely to be a mistake."""
        return tuple(self.content["warnings"])

    def save(self, picture: str | Path) -> None:
        """The memory over one training step, as an SVG or PNG. Raises ToolchainError without matplotlib."""
        check_picture(Path(picture))
        draw_plan(self.content, [Path(picture)])

    def compile(self, out: str | Path, *, progress: Progress | None = None) -> Built:
        """The program, with all artefacts of its stages, in a folder. Raises what `medyate compile` refuses."""
        folder = Path(out)
        with _shown(progress) as show:
            compile_model(self.network.path, self.data, self.options, folder, show, _tell)
        return Built(folder, self)


@dataclass(frozen=True)
class Built:
    """A folder that was compiled: Built("out/") opens one."""

    folder: Path
    plan: Plan | None = field(default=None, repr=False)
    """None: of a folder that was opened."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        Compiled.read(self.folder)

    @property
    def target(self) -> str:
        """What it was built for."""
        return str(self.compiled.model["target"])

    @property
    def compiled(self) -> Compiled:
        """What its folder says."""
        return Compiled.read(self.folder)

    def simulate(self, *, flash: str | Path | None = None, progress: Progress | None = None) -> Simulator:
        """The same C on this machine: of a program for a board, its twin is built in the folder `host` of this one.

        `flash`: the file that holds what is learned; default: flash.bin in the folder. Raises ArtefactError where a
        folder was opened that is for a board: the twin needs the network and the data.
        """
        built = self if self.target == "host" else self._twin(progress)
        return Simulator(built, "host", None if flash is None else Path(flash))

    def emulate(self, *, flash: str | Path | None = None) -> Simulator:
        """The program itself in QEMU. Raises LinkError where QEMU has no such board."""
        return Simulator(self, "qemu", None if flash is None else Path(flash))

    def connect(self, port: str) -> Simulator:
        """The program on a board at a serial port."""
        return Simulator(self, f"serial:{port}", None)

    def _twin(self, progress: Progress | None) -> Built:
        if self.plan is None:
            raise ArtefactError(f"'{self.folder}' was compiled for {self.target}.", "Compile with target='host'.")
        options = replace(self.plan.options, target="host", tight=False, kernels=None)
        twin = replace(self.plan, options=options).compile(self.folder / "host", progress=progress)
        if twin.compiled.model["digest"] != self.compiled.model["digest"]:
            raise ArtefactError(f"'{self.folder}' is no longer what was compiled.", COMPILE)
        return twin


@dataclass(frozen=True)
class Step:
    """What one sample gave."""

    loss: float
    """In nats, or the mean squared error; of an inference without a label 0."""
    prediction: int
    """Class, or the largest output."""
    logits: NDArray[np.float64] = field(repr=False)


class Simulator:
    """A program that trains and infers, on this machine, in QEMU or on a board; close it, or use it with `with`."""

    def __init__(self, built: Built, on: str, flash: Path | None) -> None:
        self.built = built
        self.on = on
        self.flash = flash or built.folder / "flash.bin"
        self._compiled = built.compiled
        self._open = ExitStack()
        self._session: Session | None = None
        self._began = self._trains = False

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the program; what was committed is kept in its flash."""
        self._session = None
        self._began = self._trains = False
        self._open.close()

    def fit(self, data: Any, *, progress: Progress | None = None, **options: Any) -> Run:
        """Trains epoch by epoch, evaluates, measures memory, as `medyate run` does; see `FitOptions`.

        A flash that holds a generation is neither used nor discarded unless `resume` or `fresh` says so. Raises
        DataError for options that do not fit, LinkError when the target is gone.
        """
        self.close()
        mine = {"on": self.on, "flash": None if self.on.startswith("serial:") else self.flash, "log": None}
        if taken := sorted(set(options) & set(mine)):
            raise DataError(f"{taken[0]} is the simulator's own.", "Give simulate(flash=...) another file.")
        (given,) = _split_options(options, FitOptions)
        given["rate"] = str(given.get("rate", AUTO))
        chosen = FitOptions(**given | mine)
        dataset = _dataset(data, float(self._compiled.model["split"]))
        with _shown(progress) as show:

            def tick(at: Tick) -> None:
                show(at.phase, at.done, at.total)

            content = fit(self._compiled, dataset, chosen, tick, _tell)
        return Run(self.built, content)

    def begin(
        self,
        steps: int,
        *,
        rate: float = RATE,
        clip: float = CLIP,
        epochs: int = 1,
        schedule: str = "constant",
        seed: int = 0,
        head_only: bool = False,
        resume: bool = False,
        fresh: bool = False,
    ) -> None:
        """Starts a training of so many steps an epoch: for `train_step`.

        A flash that holds a generation is neither used nor discarded unless `resume` or `fresh` says so: DataError.
        """
        FitOptions(rate=str(rate), epochs=epochs, schedule=schedule, seed=seed, resume=resume, fresh=fresh).check()
        if steps < 1 or steps * epochs >= 2**32:
            raise DataError(f"a training of {epochs} epochs of {steps} steps cannot be.", "Give 1 or more.")
        training = Training(
            float(rate), epochs, steps, schedule, seed=seed, head_only=head_only, fresh=False, clip=check_clip(clip)
        )
        session = self._connected()
        there = session.begin(training)
        if there.is_used and not (resume or fresh):
            raise DataError(
                f"the flash holds generation {there.generation}, trained for {there.epochs} epochs.",
                "Go on with it (resume=True), or discard it (fresh=True).",
            )
        if there.is_used and resume and there.settings != training.settings():
            raise DataError("the training in flash was begun with other settings.", "Give the same, or fresh=True.")
        if not (there.is_used and resume):
            session.begin(replace(training, fresh=True))
        self._began = self._trains = True

    def train_step(self, sample: ArrayLike, label: Any) -> Step:
        """One training step on one sample, as it is in a data set, and its label or targets. `begin` comes before."""
        if not self._trains:
            raise DataError("no training was begun.", "Call begin(steps) first, or fit(data).")
        session = self._connected()
        result = session.train(self._int8(sample), self._label(label))
        return Step(result.loss, result.prediction, self._logits(session))

    def infer(self, sample: ArrayLike, label: Any = None) -> Step:
        """One inference; with a label or targets, its loss. Without `begin`, of the newest generation in flash."""
        session = self._connected()
        if not self._began:
            session.begin(Training(RATE, 1, 1, "constant", fresh=False))
            self._began = True
        result = session.infer(self._int8(sample), *(() if label is None else (self._label(label),)))
        return Step(0.0 if label is None else result.loss, result.prediction, self._logits(session))

    def end_epoch(self) -> int:
        """Commits what was learned to flash and draws the next channels; returns how many epochs the flash holds."""
        if not self._trains:
            raise DataError("no training was begun.", "Call begin(steps) first, or fit(data).")
        return self._connected().commit().epochs

    def export(self, path: str | Path) -> dict[str, Any]:
        """The trained network as an int8 .tflite or .onnx, from the newest generation; after `fit`."""
        self.close()
        out = self.built.folder
        on = self.on if self.on.startswith("serial:") else None
        return export_trained(out, Path(path), self.flash, out / "run.json", on)

    def _connected(self) -> Session:
        if self._session is None:
            self._session = self._open.enter_context(connect(self._compiled, self.on, self.flash))
        return self._session

    def _int8(self, sample: ArrayLike) -> NDArray[np.int8]:
        model = self._compiled.model
        shape = tuple(model["input_shape"])
        values = _array("sample", sample)
        if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            raise DataError("a sample holds what is no finite number.", "Give one as in the data set.")
        fitted = datasets.fit_samples(values[None], shape)[0]
        if fitted.shape != shape:
            raise DataError(f"a sample of {np.shape(sample)} is none of {shape}.", "Give one as in the data set.")
        return Scaling(*model["pixels"]).int8(fitted, Quant(*model["input"]))

    def _label(self, label: Any) -> Any:
        model = self._compiled.model
        if not model["classes"]:
            targets = _array("label", label).reshape(-1)
            if len(targets) != model["outputs"] or targets.dtype.kind not in "fiub" or not np.isfinite(targets).all():
                raise DataError(f"targets are {model['outputs']} finite numbers.", "Give as many as outputs.")
            return targets.astype(np.float64)
        if not isinstance(label, int | np.integer) or not 0 <= label < model["outputs"]:
            raise DataError(f"{label!r} is no class from 0 to {model['outputs'] - 1}.", "Give the number of one.")
        return int(label)

    def _logits(self, session: Session) -> NDArray[np.float64]:
        return session.logits() / 65536.0


@dataclass(frozen=True)
class Run:
    """A training that ended."""

    built: Built
    content: Mapping[str, Any] = field(repr=False)
    """The run log, as `medyate run --json` prints it."""

    @property
    def accuracy(self) -> float | None:
        """On the test part, at the end; None where vectors are to be hit."""
        return _number(self.content["accuracy_after"])

    @property
    def loss(self) -> float | None:
        """Likewise."""
        return _number(self.content["loss_after"])

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """An entry for each epoch."""
        return tuple(self.content["history"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a run finds odd about itself."""
        return tuple(sign["text"] for sign in self.content["warnings"])

    def report(self, path: str | Path, data: Any = None) -> None:
        """Accuracy, memory, ranking and selected channels, as a PNG or SVG; with more as an HTML page.

        `data`: what was trained with, for samples that were taken wrong. Raises ToolchainError without matplotlib.
        """
        path, out = Path(path), self.built.folder
        if path.suffix.lower() != ".html":
            check_picture(path)
            draw_last_run(out, path, self.content)
            return
        check_page(path)
        dataset = None if data is None else _dataset(data, float(self.built.compiled.model["split"]))
        write_page(out, path, dataset, self.content)

    def __str__(self) -> str:
        what = "loss" if self.accuracy is None else "accuracy"
        content = self.content
        alone = content[f"{what}_head_only"]
        lines = [
            f"{what} {content[f'{what}_before']:.4f} -> {content[f'{what}_after']:.4f} in {content['epochs']} epochs"
            + ("" if alone is None else f"; the head alone {alone:.4f}"),
            *(_entry(entry) for entry in self.history),
            *(f"warning: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return _pictured(self.report, html.escape(str(self)))


def _entry(entry: Mapping[str, Any]) -> str:
    score = entry.get("accuracy")
    tested = "" if score is None else f"  accuracy {score:.4f}"
    return f"epoch {entry['epoch']:>3}  loss {entry['loss']:.4f}{tested}"


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _exported(module: Any, example: Any) -> Network:
    """Of a module, by way of a file. Raises DataError for what is none, ModelError where torch cannot export it."""
    frontends.check(Path("module.pt2"))
    import torch

    if not isinstance(module, torch.nn.Module):
        raise DataError(f"a {type(module).__name__} is no network.", "Give a file, or a torch.nn.Module.")
    if example is None:
        raise DataError("a module needs an example of its input.", "Give load(module, example), batch included.")
    folder = tempfile.TemporaryDirectory(prefix="medyate-")
    name = type(module).__name__.lower()
    path = Path(folder.name) / f"{name}.pt2"
    was_training = module.training
    try:
        inputs = example if isinstance(example, tuple) else (torch.as_tensor(example),)
        torch.export.save(torch.export.export(module.eval(), inputs), path)
    except Exception as error:  # whatever its code raises
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"torch.export refuses the module: {first[0]}", "Export it to a file, and load that."
        ) from error
    finally:
        module.train(was_training)
    return Network(path, folder)


def _array(name: str, value: Any) -> NDArray[Any]:
    """Raises DataError for what is no array."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is no array: {error}.", "Give numbers of one shape.") from error


def _gathered(source: Any) -> dict[str, NDArray[Any]]:
    """X and y of what gives (sample, label) by number. Raises DataError for anything else."""
    try:
        pairs = [source[number] for number in range(len(source))]
        x = np.stack([np.asarray(sample) for sample, _ in pairs])
        y = np.stack([np.asarray(label) for _, label in pairs])
    except Exception as error:  # whatever its code raises
        raise DataError(
            f"a {type(source).__name__} is no data set: {error}.",
            "Give a folder, an .npz, arrays, or something that gives (sample, label) by number.",
        ) from error
    return {"x": x, "y": y}


def _dataset(source: Any, split: float) -> Dataset:
    return source if isinstance(source, Dataset) else data(source, split=split)


def _split_options(given: Mapping[str, Any], *records: type[Any]) -> list[dict[str, Any]]:
    """The keywords of each record. Raises DataError for one that is of none."""
    names = [{part.name for part in fields(record)} for record in records]
    known = sorted(set().union(*names))
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise DataError(f"the option '{unknown[0]}' is unknown.", f"It is one of {', '.join(known)}.")
    return [{name: value for name, value in given.items() if name in own} for own in names]


@contextmanager
def _shown(progress: Progress | None) -> Iterator[Progress]:
    if progress is not None:
        yield progress
        return
    with Bar() as bar:
        yield bar.show


def _tell(text: str) -> None:
    errors.print(f"medyate: {text}.")


def _pictured(draw: Callable[[Path], None], text: str) -> str:
    """An SVG beside the text; the text alone without matplotlib."""
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        path = Path(folder) / "picture.svg"
        try:
            draw(path)
        except MedyateError:
            return f"<pre>{text}</pre>"
        picture = path.read_text()
    return f"<pre>{text}</pre>{picture[picture.index('<svg') :]}"
