# SPDX-License-Identifier: Apache-2.0
"""`medyate package`: the runtime and a compiled model for somebody's own project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medyate.assets import PORTABLE, families
from medyate.build.package import KINDS, read_model, write_packages
from medyate.cli.options import Json, show, tell
from medyate.options import choice
from medyate.terminal import console

Compiled = Annotated[
    Path | None, typer.Argument(help="What `compile` wrote; without it the runtime alone is packed.", metavar="[OUT]")
]
For = Annotated[str, typer.Option("--for", help=f"Build system: {', '.join(KINDS)}.")]
Into = Annotated[Path, typer.Option("-o", "--out", help="Folder that gets a folder for each package.")]
Kernels = Annotated[
    str, typer.Option(help=f"Family of kernels, {' or '.join(families())}; dsp is for Cortex-M4, M7, M33 and M55.")
]


def package(for_: For, out: Into, compiled: Compiled = None, kernels: Kernels = PORTABLE, json_: Json = False) -> None:
    """Packs the runtime and a compiled model as libraries of another build system, with examples."""
    choice(for_, tuple(KINDS), "--for")
    choice(kernels, families(), "--kernels")
    model = None if compiled is None else read_model(compiled)
    written = write_packages(for_, out, model, kernels, tell)
    content = {"for": for_, "packages": [str(folder) for folder in written]}
    show(content, json_, lambda: console.print("\n".join(f"wrote {folder}" for folder in written) or "nothing to do"))
