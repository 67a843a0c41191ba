# SPDX-License-Identifier: Apache-2.0
"""The runtime and a compiled model as packages of other build systems: two folders, so that models share one runtime.

What a build system wants beside the sources lies in `firmware/packages/<kind>`: `runtime/` and `model/`. Which files
are the runtime's is said here, once for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medyate import artefact, files
from medyate.assets import PORTABLE, assets, kernel_files
from medyate.build.manifest import replace_files
from medyate.build.project import app_files, copies, render
from medyate.compiled import COMPILE, load_compiled
from medyate.emit.emitter import FILES, check_prefix
from medyate.errors import ArtefactError, DataError
from medyate.plan.banks import BankFlash, Run
from medyate.version import VERSION

RUNTIME = "medyate"
"""Folder of the runtime's package."""
CONFIG = "mdy/config.h"
SOURCE_MAX = 1 << 28
"""Bytes of a generated file."""
PACKED: artefact.Form = {"prefix": str, "config": {"MDY_GRAD_BITS": int, "MDY_ROUND_ONCE": int}}
"""What a package takes of model.json beside what all commands do."""


@dataclass(frozen=True)
class Kind:
    """Where a build system looks for what."""

    headers: str
    """Folder of the runtime's headers in its package."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """Application of firmware/apps by the folder of the model's package that gets its sources."""
    replaced: tuple[str, ...] = ()
    """Files of the applications that the build system's own examples replace."""


KINDS: Mapping[str, Kind] = {
    "platformio": Kind(
        "include",
        {f"examples/{app}/src": app for app in ("learn_by_button", "replay", "serial_trainer")},
    ),
    "arduino": Kind("src", {"examples/LearnByButton": "learn_by_button"}, ("main.c", "line.c")),
    "zephyr": Kind("include", {"samples/learn_by_button/src": "learn_by_button"}),
    "espidf": Kind("include", {"examples/learn_by_button/main": "learn_by_button"}),
}
SOURCES = "src"
"""Folder of the sources in either package."""


@dataclass(frozen=True)
class Model:
    """What a package is made of."""

    prefix: str
    network: str
    config: Mapping[str, int]
    sources: Mapping[str, bytes]
    """Generated files by name."""
    pixels: tuple[float, float]
    """What a value v of the data means to the network: gain * v + offset."""
    flash: BankFlash | None
    """Sectors that hold the banks; None: weights are in RAM."""

    @property
    def folder(self) -> str:
        """Of its package."""
        return f"{self.prefix}_model"


def read_model(out: Path) -> Model:
    """What `compile` left in a folder. Raises ArtefactError."""
    about, plan = load_compiled(out)
    artefact.check_form(out / "model.json", about, PACKED)
    prefix = check_prefix(about["prefix"])
    names = [f"{prefix}_{name}" for name in FILES]
    source = out / "project" / "src"
    sources = {name: files.read_bytes(source / name, ArtefactError, SOURCE_MAX, COMPILE) for name in names}
    flash = BankFlash(tuple(Run(*run) for run in about["flash_runs"]), about["flash_unit_bytes"])
    pixels = (about["pixels"][0], about["pixels"][1])
    return Model(
        prefix, about["network"], about["config"], sources, pixels, None if plan["weights"] == "ram" else flash
    )


def write_packages(
    kind: str, folder: Path, model: Model | None, kernels: str = PORTABLE, tell: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Writes the runtime's package into `folder` and, beside it, the model's; gives their folders.

    `model` None: the runtime alone, as it is. `tell` is told of edited files, which are kept under another name.
    Raises DataError where a model is there that needs another runtime.
    """
    values: dict[str, Any] = {"version": VERSION, "prefix": "", "macro": "", "network": ""}
    wanted = {} if model is None else model.config
    packages = {}
    if model is not None or not (folder / RUNTIME).exists():
        _check_shared(kind, folder, model)
        packages[RUNTIME] = {**runtime_files(kind, kernels, wanted), **_own(kind, "runtime", values)}
    if model is not None:
        values |= {"prefix": model.prefix, "macro": model.prefix.upper(), "network": model.network}
        values |= {"pixels": model.pixels, "flash": model.flash}
        packages[model.folder] = {**_model_files(kind, model), **_own(kind, "model", values)}
    for name, content in packages.items():
        for kept in replace_files(folder / name, content):
            tell(f"what is not medyate's own, or was edited, has been kept as '{kept}'")
    return [folder / name for name in packages]


def runtime_files(kind: str, kernels: str, config: Mapping[str, int]) -> dict[str, bytes]:
    """The runtime's files by their place in its package."""
    headers = KINDS[kind].headers
    runtime = assets() / "runtime_c"
    content = {
        **copies(runtime / "include", headers),
        **copies(runtime / "ports/emu", headers, (".h",)),
        **copies(runtime / "ports/emu", SOURCES, (".c",)),
        **copies(runtime / "src", SOURCES),
        **{f"{SOURCES}/kernels/{name}": (runtime / "kernels" / name).read_bytes() for name in kernel_files(kernels)},
    }
    text = content[f"{headers}/{CONFIG}"].decode()
    for name, value in config.items():
        text, count = re.subn(rf"(?m)^#define {name} \d+$", f"#define {name} {value}", text)
        assert count == 1, name
    return {**content, f"{headers}/{CONFIG}": text.encode()}


def _model_files(kind: str, model: Model) -> dict[str, bytes]:
    content = {f"{SOURCES}/{name}": source for name, source in model.sources.items()}
    for folder, app in KINDS[kind].examples.items():
        own = app_files(app, model.prefix, folder)
        content |= {name: text for name, text in own.items() if Path(name).name not in KINDS[kind].replaced}
    return content


def _own(kind: str, part: str, values: dict[str, Any]) -> dict[str, bytes]:
    """What the build system wants of a package."""
    source = assets() / "firmware/packages" / kind / part
    content = {name.removeprefix("/"): text for name, text in copies(source, "").items()}
    for template in sorted(source.rglob("*.j2")):
        name = template.relative_to(source).with_suffix("").as_posix().replace("PREFIX", values["prefix"])
        content[name] = render(template, values).encode()
    return content


def _check_shared(kind: str, folder: Path, model: Model | None) -> None:
    """Raises DataError where the runtime would no longer be that of a model beside it."""
    present = folder / RUNTIME / KINDS[kind].headers / CONFIG
    others = [path.parent.parent for path in folder.glob(f"*/{SOURCES}/*_model.h")]
    others = [path for path in others if model is None or path.name != model.folder]
    if model is None or not others or not present.is_file():
        return
    text = files.read_bytes(present, ArtefactError, SOURCE_MAX, "Remove it.").decode(errors="replace")
    for name, value in model.config.items():
        if f"\n#define {name} {value}\n" not in text:
            raise DataError(
                f"'{others[0].name}' needs a runtime with another {name} than this model, and they share one.",
                "Compile both with the same --grad-bits and --rounding, or give another -o.",
            )
