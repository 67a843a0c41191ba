# SPDX-License-Identifier: Apache-2.0
"""The report of a study: Markdown with pictures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.errors import DataError
from medyate.extras import require
from medyate.report import rankings as compared
from medyate.study import paired, pictures, tables
from medyate.study.rows import SWEPT, Row, groups, swept, unique
from medyate.study.spec import Cell


def write(
    name: str,
    results: Sequence[tuple[Cell, dict[str, Any]]],
    failures: Sequence[tuple[Cell, str]],
    rankings: Sequence[Mapping[str, Any]],
    out: Path,
    suffix: str,
    contrasts: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Writes report.md and its pictures; returns what there is. Raises DataError when no cell has a result."""
    require("a report", "matplotlib", "scipy")
    rows = [Row(cell, result) for cell, result in results]
    if not rows:
        raise DataError(f"no cell of '{name}' has a result.", "Run `medyate study` first.")
    drawn: list[Path] = []

    def picture(title: str) -> Path:
        drawn.append(out / f"{title}{suffix}")
        return drawn[-1]

    parts = [f"# {name}\n", _facts(rows, failures)]
    for number, group in enumerate(groups(rows), 1):
        parts += [f"## {group.title}\n", tables.accuracy(group)]
        if all(None not in row.result["accuracies"] for row in group.rows):
            path = picture(f"curves{number}")
            pictures.curves(group, path)
            parts += [f"![accuracy over epochs]({path.name})\n"]
        parts += [text for text in (tables.footprints(group), tables.device(group)) if text]
        if any("step_instructions" in row.result for row in group.rows):
            path = picture(f"pareto{number}")
            pictures.pareto(group, path)
            parts += [f"![accuracy against instructions against bytes]({path.name})\n"]
    compared = tables.engines(rows)
    parts += ["## Integers against floats\n", compared] if compared else []
    parts += _tests(rows, contrasts, picture)
    for axis in SWEPT:
        values = swept(rows, axis)
        if values:
            path = picture(f"sweep_{axis}")
            pictures.sweep(rows, axis, values, path)
            parts += [f"## Sweep of {axis}\n", tables.sweep(rows, axis, values), f"![{axis}]({path.name})\n"]
    parts += _stability(rows, picture)
    parts += _rankings(rankings, picture)
    artefact.write_text(out / "report.md", "\n".join(parts))
    return {
        "report": str(out / "report.md"),
        "pictures": [str(path) for path in drawn],
        "cells": len(rows),
        "failed": len(failures),
    }


def _facts(rows: Sequence[Row], failures: Sequence[tuple[Cell, str]]) -> str:
    lines = [
        f"{len(rows)} runs. Accuracies in percent: mean ± standard deviation over seeds; an average's is the root of "
    ]
    lines[0] += (
        "the summed squares, as in the papers. Points per KiB: what training adds to the head alone, for each KiB "
    )
    lines[0] += "of int8 weights and maps that are trained."
    for fixed, varied in unique((row.cell.fixed, tuple(name for name, _ in row.cell.varied)) for row in rows):
        ranked = f"ranking from {Path(fixed.rank_data).name}" if fixed.rank_data else "ranking from the task itself"
        said = {
            "engine": f"engine {fixed.engine}",
            "epochs": f"{fixed.epochs} epochs with {fixed.warmup} of warm-up",
            "batch": f"{fixed.batch} samples per update" if fixed.batch > 1 else "one sample per update",
            "clip": f"gradients clipped to {fixed.clip:g} per layer" if fixed.clip else "no clipping",
            "limit": f"{fixed.limit} training samples" if fixed.limit else "all training samples",
            "flip": "random flips" if fixed.flip else "no augmentation",
            "rank_data": f"{ranked} ({fixed.rank_epochs} epochs)",
        }
        text = ", ".join(what for name, what in said.items() if name not in varied)
        axes = f" Varied: {', '.join(varied)}." if varied else ""
        lines.append(f"{text[0].upper()}{text[1:]}.{axes}")
    others = unique((row.data, row.cell.own) for row in rows if row.cell.own)
    lines += [f"{data}: {', '.join(f'{name} {value}' for name, value in own)}." for data, own in others]
    lines += [f"Failed: {cell.label} on {Path(cell.data).name}, seed {cell.seed}: {error}" for cell, error in failures]
    return "\n\n".join(lines) + "\n"


def _tests(rows: Sequence[Row], contrasts: Sequence[tuple[str, str]], picture: Any) -> list[str]:
    """Over everything but the rate, which is a choice and no sample."""
    parts = []
    for number, rate in enumerate(unique(row.cell.rate for row in rows), 1):
        own = [row for row in rows if row.cell.rate == rate]
        labels = unique(row.label for row in own)
        if len(labels) < 2:
            continue
        path = picture(f"tests{number}")
        pictures.tests(own, path)
        note = (
            "Pairs share network, data, budget and seed. p of paired t-tests; p (Holm) is corrected for the number of "
            "tests in its own table, p in the matrix is not. Seeds draw initial values and orders, never samples: "
            "spreads and p hold for these training and test samples.\n"
        )
        drawn = f"![paired t-tests]({path.name})\n"
        parts += [
            f"## Paired t-tests, rate {rate:g}\n",
            note,
            *(["What the study asks:\n", paired.asked(own, contrasts)] if contrasts else []),
            paired.against(own, labels[0]),
            *_by_network(own, labels[0]),
            paired.matrix(own),
            drawn,
        ]
    return parts


def _by_network(rows: Sequence[Row], reference: str) -> Iterator[str]:
    """The tests against a strategy for each network alone, where there are several."""
    networks = unique(row.result["network"] for row in rows)
    for network in networks if len(networks) > 1 else ():
        yield f"{network} alone:\n"
        yield paired.against([row for row in rows if row.result["network"] == network], reference)


def _stability(rows: Sequence[Row], picture: Any) -> list[str]:
    text = tables.stability(rows)
    if not text:
        return []
    path = picture("stability")
    pictures.stability([row for row in rows if any(p is not None for p in row.result.get("p", ()))], path)
    note = "p of Welch's t-test between the full gradient's channel norms at the starts of consecutive epochs.\n"
    return ["## Stability of the norms\n", note, text, f"![stability]({path.name})\n"]


def _rankings(rankings: Sequence[Mapping[str, Any]], picture: Any) -> list[str]:
    parts = []
    for number, network in enumerate(unique(ranking["network"] for ranking in rankings), 1):
        own = [ranking for ranking in rankings if ranking["network"] == network]
        if len(own) < 2:
            continue
        matrices = {score: compared.matrix(own, score) for score in compared.SCORES}
        names = [compared.label(ranking) for ranking in own]
        path = picture(f"rankings{number}")
        compared.draw(names, matrices, path)
        head = ["LaRa", *(str(i + 1) for i in range(len(own)))]
        lines = [
            [f"{i + 1} {name}", *(f"{value:.3f}" for value in matrices["lara"][i])] for i, name in enumerate(names)
        ]
        parts += ["## Spearman's correlation of rankings\n", tables.table(head, lines), f"![rankings]({path.name})\n"]
    return parts
