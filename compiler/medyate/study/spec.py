# SPDX-License-Identifier: Apache-2.0
"""A study as a TOML file: what is fixed, and a grid of what is not; each point of the grid is a cell.

A network may have budgets of its own, a data set what is fixed for the others; what can be fixed can be an axis.

    name = "strategies"
    engine = "float"                # or "device": the integer host twin
    epochs = 12
    [grid]
    network = ["../nets/net.onnx", {path = "../nets/large.onnx", budget = [66592]}]  # relative to the file
    data = ["../data/flowers17", {path = "../data/birds", limit = 600, epochs = 4}]
    strategy = ["medyate", {name = "su", scheme = "49kb"}]
    budget = [27946]
    seed = [0, 42, 100]

`contrasts` names the comparisons that the study is made for; the report corrects their p for the number of them:
contrasts = [["medyate", "su"]].

A cell's key is the digest of all its facts, so that a changed study finds the cells it shares with the old one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from medyate import files
from medyate.datasets import AUTO, PIXELS
from medyate.errors import DataError
from medyate.recipe import CLIP, check_batch, check_clip
from medyate.sample.policy import FITS, NORMS, SKIP, SQUARES
from medyate.strategies import STRATEGIES, find_strategy
from medyate.strategies.cost import COSTS
from medyate.strategies.problem import Settings

ENGINES = ("float", "device")
RAM = "ram"
UNITS = (*COSTS, RAM)
"""What budgets are counted in: a cost model's name or, for the device engine, all of the RAM."""
IN_RAM = ("medyate", "lara-trady", "trady", "prev-medyate", "d-full-random", "su", "head", "bias", "full")
"""Strategies to which the RAM says how much is selected; su with a named scheme."""
AXES = ("network", "data", "strategy", "budget", "seed", "rate", "k", "alpha")
SETTINGS = tuple(field.name for field in fields(Settings))
MAPPINGS = ("settings", "own", "varied")
"""Fields of a cell that are pairs here and objects in JSON."""


@dataclass(frozen=True)
class Fixed:
    """What all cells of a study share."""

    engine: str = "float"
    cost: str = "paper"
    """Unit of the budgets, one of UNITS; the device engine counts in RAM if nothing is said."""
    epochs: int = 10
    """All of them, the warm-up's included."""
    warmup: int = 1
    batch: int = 1
    """Samples of one update, by the mean of their gradients."""
    clip: float = CLIP
    """Largest norm of a layer's gradient in one step; 0: as large as it comes."""
    limit: int = 0
    """Training samples, the first of a seeded order; 0: all."""
    test_limit: int = 0
    """Test samples, likewise."""
    evaluate_each: bool = True
    """Whether accuracy is measured after every epoch, not only after the last one."""
    resize: bool = False
    """Whether images of another size, or grey ones, are brought to the network's input."""
    pixels: str = AUTO
    split: float = 0.25
    flip: bool = False
    """Random horizontal flips."""
    step_instructions: int = 0
    """What no step of the device may take more than; 0: any number."""
    stability: bool = False
    """Whether each epoch's full gradient is compared with the last one's."""
    gradient_samples: int = 256
    """Training samples of a full gradient."""
    norm: str = SQUARES
    """What an epoch sees of its channels: one of sample.policy.NORMS."""
    fit: str = SKIP
    """What becomes of a drawn channel that does not fit: one of sample.policy.FITS."""
    rank_data: str = ""
    """Data of the preliminary fine-tuning; empty: the cell's own."""
    rank_epochs: int = 3
    rank_seed: int = 0
    rank_limit: int = 0
    """Training samples of the preliminary fine-tuning; 0: as many as of the training itself."""

    @property
    def samples(self) -> Samples:
        """How data are read."""
        return Samples(self.limit, self.test_limit, self.pixels, self.split, self.resize)


@dataclass(frozen=True)
class Samples:
    """How data are read: fields of `Fixed`."""

    limit: int
    test_limit: int
    pixels: str
    split: float
    resize: bool


@dataclass(frozen=True)
class Cell:
    """One training."""

    network: str
    data: str
    strategy: str
    settings: tuple[tuple[str, Any], ...]
    """What is set of `Settings`, by name."""
    budget: int
    """0: the strategy needs none."""
    seed: int
    rate: float
    fixed: Fixed
    """Of the study."""
    own: tuple[tuple[str, Any], ...] = ()
    """What is fixed otherwise for this data set, by name."""
    varied: tuple[tuple[str, Any], ...] = ()
    """What is an axis of the grid though others fix it, by name."""

    @property
    def facts(self) -> Fixed:
        """All that holds for this cell."""
        return replace(self.fixed, **dict(self.varied), **dict(self.own))

    @property
    def key(self) -> str:
        """The digest of all that makes the training what it is."""
        content = {**asdict(self), "fixed": asdict(self.facts)}
        return _digest({name: value for name, value in content.items() if name not in ("own", "varied")})

    @property
    def ranking(self) -> RankJob:
        """The preliminary fine-tuning that its strategy builds on."""
        f = self.facts
        samples = replace(f.samples, limit=f.rank_limit or f.limit)
        return RankJob(self.network, f.rank_data or self.data, f.rank_epochs, f.rank_seed, samples)

    @property
    def label(self) -> str:
        """The strategy with its settings: a row of a table."""
        inner = ", ".join(f"{name}={value}" for name, value in (*self.settings, *self.varied))
        return f"{self.strategy} ({inner})" if inner else self.strategy

    def to_json(self) -> dict[str, Any]:
        """For the store and for workers."""
        return {**asdict(self), **{name: dict(getattr(self, name)) for name in MAPPINGS}}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Cell:
        """The inverse."""
        mappings = {name: tuple(content[name].items()) for name in MAPPINGS}
        return Cell(**{**content, **mappings, "fixed": Fixed(**content["fixed"])})


@dataclass(frozen=True)
class RankJob:
    """One preliminary fine-tuning."""

    network: str
    data: str
    epochs: int
    seed: int
    samples: Samples

    @property
    def key(self) -> str:
        """The digest of everything above."""
        return _digest(asdict(self))

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> RankJob:
        """The inverse of asdict."""
        return RankJob(**{**content, "samples": Samples(**content["samples"])})


@dataclass(frozen=True)
class Study:
    """A read specification."""

    name: str
    folder: Path
    """Paths of networks and data are relative to it."""
    cells: tuple[Cell, ...]
    contrasts: tuple[tuple[str, str], ...] = ()
    """Labels of strategies: the comparisons that the study is made for."""

    @property
    def rankings(self) -> tuple[RankJob, ...]:
        """Every preliminary fine-tuning that some cell needs, once."""
        return tuple({job.key: job for job in (cell.ranking for cell in self.cells)}.values())


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> Study:
    """Reads a specification. Raises DataError that names what is wrong."""
    text = files.read_bytes(path, DataError, SPEC_MAX, "Give a study's TOML file; it cannot be read.")
    with files.boundary(DataError, f"'{path}' is no TOML", "Correct the file."):
        content = tomllib.loads(text.decode())
    with files.boundary(DataError, f"'{path}' is no study", "Correct the file."):
        return _study(path, content)


SPEC_MAX = 1 << 20
CELLS_MAX = 100_000


def _study(path: Path, content: dict[str, Any]) -> Study:
    name, grid = content.pop("name", path.stem), content.pop("grid", {})
    contrasts = content.pop("contrasts", [])
    if not isinstance(name, str) or not isinstance(grid, dict):
        raise DataError(f"'{path}' needs a name and a [grid].", "See the head of medyate/study/spec.py.")
    unsaid = {"cost": RAM} if content.get("engine") == "device" else {}
    fixed = _fixed(Fixed(), {**unsaid, **content}, path)
    cells = {cell.key: cell for cell in _cells(grid, fixed, path)}  # settings that a strategy ignores make equals
    return Study(name, path.parent, tuple(cells.values()), _contrasts(contrasts, cells.values(), path))


def _contrasts(pairs: Any, cells: Iterable[Cell], path: Path) -> tuple[tuple[str, str], ...]:
    labels = list(dict.fromkeys(cell.label for cell in cells))
    remedy = f'Write contrasts = [["{labels[0]}", "{labels[-1]}"]]; the study has {", ".join(labels)}.'
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError(f"'{path}': contrasts are no list of pairs.", remedy)
    for name in itertools.chain(*pairs):
        if name not in labels:
            raise DataError(f"'{path}': a contrast names '{name}', which the study does not have.", remedy)
    return tuple((first, second) for first, second in pairs)


def _fixed(base: Fixed, content: Mapping[str, Any], path: Path) -> Fixed:
    known = {field.name: type(field.default) for field in fields(Fixed)}
    for name, value in content.items():
        if name not in known:
            raise DataError(f"'{path}' sets '{name}', which a study does not have.", f"It has {', '.join(known)}.")
        if not _is(value, known[name]):
            raise DataError(f"'{path}': {name} = {value!r} is no {known[name].__name__}.", "Correct the file.")
    fixed = replace(base, **content)
    checks = (
        (fixed.engine in ENGINES, f"engine '{fixed.engine}' is none of {', '.join(ENGINES)}"),
        (fixed.cost in UNITS, f"cost '{fixed.cost}' is none of {', '.join(UNITS)}"),
        (fixed.engine == "device" or fixed.cost != RAM, "the float engine has no RAM"),
        (fixed.engine == "float" or fixed.cost != "paper", "the device's budgets are bytes: cost = 'device' or 'ram'"),
        (fixed.norm in NORMS, f"norm '{fixed.norm}' is none of {', '.join(NORMS)}"),
        (fixed.fit in FITS, f"fit '{fixed.fit}' is none of {', '.join(FITS)}"),
        (fixed.engine == "float" or (fixed.norm, fixed.fit) == (SQUARES, SKIP), "the device has one norm and fit only"),
        (fixed.pixels in PIXELS, f"pixels '{fixed.pixels}' is none of {', '.join(PIXELS)}"),
        (0 <= fixed.warmup < fixed.epochs, f"{fixed.warmup} of {fixed.epochs} epochs cannot be warm-up"),
        (min(fixed.batch, fixed.gradient_samples, fixed.rank_epochs) >= 1, "batch, gradient_samples and rank_epochs"),
        (min(fixed.limit, fixed.test_limit, fixed.rank_limit) >= 0, "a limit is below zero"),
        (fixed.step_instructions >= 0, "step_instructions are below zero"),
        (fixed.engine == "device" or not fixed.step_instructions, "the float engine counts no step_instructions"),
        (0.0 < fixed.split < 1.0, f"split {fixed.split:g} is outside (0, 1)"),
        (0 <= fixed.rank_seed < 2**32, f"rank_seed {fixed.rank_seed} has more than 32 bits"),
    )
    for holds, what in checks:
        if not holds:
            raise DataError(f"'{path}': {what}.", "Correct the file.")
    check_clip(fixed.clip)
    if fixed.engine == "device":
        check_batch(fixed.batch)
    return fixed


def _is(value: Any, wanted: type) -> bool:
    """Whether a TOML value is of a type; whole numbers are numbers, truth values are not."""
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is wanted


def _cells(grid: Mapping[str, Any], fixed: Fixed, path: Path) -> Iterator[Cell]:
    varied = sorted(set(grid) & {field.name for field in fields(Fixed)})
    unknown = sorted(set(grid) - set(AXES) - set(varied))
    if unknown:
        raise DataError(
            f"'{path}': the grid has no axis '{unknown[0]}'.",
            f"Its axes are {', '.join(AXES)}, and all that can be fixed.",
        )
    values = {name: grid.get(name, []) for name in (*AXES, *varied)}
    for name, given in values.items():
        needed = name in ("network", "data", "strategy", "seed", "rate", *varied)
        if not isinstance(given, list) or (needed and not given):
            raise DataError(f"'{path}': the grid's {name} is no list with entries.", "Give a list.")
    settings = [name for name in ("k", "alpha") if values[name]]
    axes = [values[name] for name in ("seed", "network", "data", "strategy", "rate")]  # seeds apart: a part is balanced
    count = math.prod(len(axis) for axis in (*axes, *(values[name] or [0] for name in (*settings, *varied, "budget"))))
    if count > CELLS_MAX:
        raise DataError(f"'{path}' has {count:,} cells.", f"Make a study of at most {CELLS_MAX:,}.")
    for seed, network, data, chosen, rate, *others in itertools.product(*axes, *(values[name] for name in varied)):
        own = isinstance(network, dict) and set(network) == {"path", "budget"}
        place, budgets = (network["path"], network["budget"]) if own else (network, values["budget"])
        if not isinstance(budgets, list):
            raise DataError(f"'{path}': the budgets of '{place}' are no list.", "Give a list.")
        for budget, *given in itertools.product(budgets or [0], *(values[name] for name in settings)):
            common = dict(zip(settings, given, strict=True))
            other = dict(zip(varied, others, strict=True))
            yield _cell(place, data, chosen, budget, seed, rate, common, (fixed, other), path)


def _cell(
    network: Any,
    data: Any,
    chosen: Any,
    budget: Any,
    seed: Any,
    rate: Any,
    common: dict[str, Any],
    given: tuple[Fixed, dict[str, Any]],
    path: Path,
) -> Cell:
    """`given`: what is fixed for all, and what varies of it."""
    base, varied = given
    fixed = _fixed(base, varied, path)
    place = dict(data) if isinstance(data, dict) else {"path": data}
    data = place.pop("path", None)
    both = sorted(set(place) & set(varied))
    if both:
        raise DataError(f"'{path}': '{both[0]}' is both an axis and set for one data set.", "Correct the grid.")
    facts = _fixed(fixed, place, path)
    if (facts.engine, facts.cost) != (fixed.engine, fixed.cost):
        raise DataError(f"'{path}': engine and cost are the same for the whole study.", "Correct the grid.")
    own = dict(chosen) if isinstance(chosen, dict) else {"name": chosen}
    named = find_strategy(str(own.pop("name", "")))
    unknown = sorted(set(own) - set(SETTINGS))
    if unknown:
        raise DataError(f"'{path}': '{unknown[0]}' is no setting of a strategy.", f"There are {', '.join(SETTINGS)}.")
    ignored = sorted(set(own) - set(named.heeds))
    if ignored:
        heeds = ", ".join(named.heeds) or "nothing"
        raise DataError(f"'{path}': '{named.name}' has no setting '{ignored[0]}'.", f"It has {heeds}.")
    rate = float(rate) if _is(rate, float) and math.isfinite(rate) else -1.0
    if not (isinstance(network, str) and isinstance(data, str) and _is(seed, int) and 0 <= seed < 2**32 and rate > 0):
        raise DataError(f"'{path}': network, data, seed or rate has a wrong form.", "Correct the grid.")
    if not all(isinstance(own.get(name, ""), str) for name in ("scheme", "boost")):
        raise DataError(f"'{path}': scheme and boost are names.", "Correct the grid.")
    Settings(**{**common, **own})  # raises for values that mean nothing
    if fixed.cost == RAM and named.name == "su" and "scheme" not in own:
        raise DataError(f"'{path}': su with the cost 'ram' needs a scheme.", "Name one.")
    allowed = IN_RAM if fixed.cost == RAM else tuple(s.name for s in STRATEGIES.values() if "device" in s.runs_on)
    if fixed.engine == "device" and named.name not in allowed:
        raise DataError(
            f"'{path}': on the device '{named.name}' does not run with cost '{fixed.cost}'.",
            f"There are {', '.join(allowed)}.",
        )
    budgeted = "budget" in named.heeds or fixed.cost == RAM
    if budgeted and not (_is(budget, int) and budget > 0):
        raise DataError(f"'{path}': '{named.name}' needs a budget above zero.", "Give the grid a list of budgets.")
    heeded = {name: value for name, value in {**common, **own}.items() if name in named.heeds}
    settings, other = (tuple(sorted(pairs.items())) for pairs in (heeded, place))
    facts_ = (seed, rate, base, other, tuple(varied.items()))
    return Cell(network, data, named.name, settings, budget if budgeted else 0, *facts_)


def with_folder(cell: Cell, folder: Path) -> Cell:
    """The same cell with paths that a worker can open."""
    settings = tuple((k, located(folder, v) if str(v).endswith(".json") else v) for k, v in cell.settings)
    return replace(cell, network=located(folder, cell.network), data=located(folder, cell.data), settings=settings)


def located(folder: Path, name: str) -> str:
    """A path of a specification as an absolute one; names of built-in data stay."""
    return name if name == "digits" else str((folder / name).resolve())
