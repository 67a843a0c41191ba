# SPDX-License-Identifier: Apache-2.0
"""`medyate bench`: the instructions of an inference, a training step and a commit, layer by layer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medyate import datasets
from medyate.boards import MACHINES
from medyate.cli.options import OPTIONS, Json, LinkKey, show, taking, tell
from medyate.errors import DataError
from medyate.options import BUILDERS, BuildOptions, PlanOptions, choice, link_key
from medyate.progress import Bar
from medyate.terminal import console

if TYPE_CHECKING:
    from medyate.datasets import Dataset
    from medyate.run.train import Compiled
    from medyate.stages import Options

TARGET = "qemu-m7"


@taking
def bench(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="OUT|MODEL", help="A folder made by `compile`, or a model to compile first."),
    ] = None,
    data_: Annotated[
        str | None, typer.Option("--data", help="Class folders, an .npz, or 'digits'; default for a folder: noise.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help=f"{', '.join(MACHINES)}. Default: that of the folder, else {TARGET}.")
    ] = None,
    stack: Annotated[str | None, OPTIONS["stack"]] = None,
    builder: Annotated[str, OPTIONS["builder"]] = BUILDERS[0],
    picture: Annotated[Path | None, typer.Option("-o", "--out", help="Bars of the layers: a PNG or SVG.")] = None,
    two: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", metavar="A.json B.json", help="Two results of --json.")
    ] = None,
    link_key_: LinkKey = None,
    json_: Json = False,
    *,
    planned: PlanOptions,
) -> None:
    """Instructions of an inference, a training step and a commit, layer by layer. They are not cycles."""
    from medyate.bench import measure
    from medyate.bench.show import draw, print_result
    from medyate.figure import check_picture
    from medyate.stages import check_packages

    if two is not None:
        if source is not None or picture is not None:
            raise DataError("a comparison counts nothing and has no picture.", "Give --compare A.json B.json alone.")
        _compare(two, json_)
        return
    if source is None:
        raise DataError("nothing is given to count.", "Give a folder made by `compile`, a model, or --compare.")
    if picture is not None:
        check_picture(picture)
    key = link_key(link_key_)
    if source.is_dir():
        if planned != PlanOptions() or stack is not None:
            raise DataError(f"'{source}' is compiled already: options of `compile` change nothing.", "Leave them out.")
        compiled = _folder(source, target)
        content = measure.bench(compiled, None if data_ is None else datasets.load(data_, compiled.model["split"]), key)
    else:
        check_packages(source)
        if data_ is None:
            raise DataError("a model is compiled for some data.", "Give --data, or a folder made by `compile`.")
        choice(target or TARGET, tuple(MACHINES), "--target")
        built = BuildOptions(target=target or TARGET, stack=stack, builder=builder, link_key=link_key_)
        options = built.options(planned)
        with tempfile.TemporaryDirectory(prefix="medyate-") as name:
            content = _model(source, datasets.load(data_, planned.split), options, Path(name))
    if content["no_layers"] is not None:
        drawn = "" if picture is None else ", and no picture is drawn"
        tell(f"layers and the commit are not counted{drawn}: {content['no_layers'].rstrip('.')}")
    elif picture is not None:
        draw(content, picture)
    show(content, json_, lambda: print_result(content, console))


def _folder(out: Path, target: str | None) -> Compiled:
    """A compiled folder, for that target if one is given. Raises DataError for another."""
    from medyate.run.train import Compiled

    compiled = Compiled.read(out)
    if target not in (None, compiled.model["target"]):
        raise DataError(f"'{out}' was compiled for {compiled.model['target']}.", "Leave out --target, or compile anew.")
    return compiled


def _model(model: Path, dataset: Dataset, options: Options, folder: Path) -> dict[str, Any]:
    """Of a model, compiled into a folder that is left to the caller."""
    from medyate.bench import measure
    from medyate.run.train import Compiled
    from medyate.stages import compile_model

    with Bar() as bar:
        compile_model(model, dataset, options, folder, bar.show, tell, keep=False)
    return measure.bench(Compiled.read(folder), dataset, options.link_key)


def _compare(two: tuple[Path, Path], as_json: bool) -> None:
    from medyate.bench.result import compare
    from medyate.bench.show import print_comparison

    found = compare(*two)
    show(found, as_json, lambda: print_comparison(found, console))
