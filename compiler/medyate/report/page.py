# SPDX-License-Identifier: Apache-2.0
"""The last run as one page: HTML that asks for nothing else, in the reader's light or dark colours, printable."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import artefact
from medyate.boards import BOARDS
from medyate.cycles import LEFT_OUT, cycles_on
from medyate.datasets import Dataset, fit_samples
from medyate.errors import ArtefactError, DataError
from medyate.figure import check_drawing, draw_inline
from medyate.report.memory_map import areas, memory_map
from medyate.report.picture import LastRun, lara, scores, selected
from medyate.version import VERSION

ERRORS = 24
"""Samples that are shown, at most."""
CLASSES = 40
"""Of a confusion matrix, at most."""
SIDE = 72
"""Pixels of a shown sample's longer side, at least."""


def check_page(path: Path) -> None:
    """Raises DataError where a page of that name cannot be written, ToolchainError where nothing draws it."""
    if path.suffix.lower() != ".html":
        raise DataError(f"'{path}' is no name of a page.", "End it in .html.")
    check_drawing()


def write_page(out: Path, path: Path, dataset: Dataset | None = None, log: Mapping[str, Any] | None = None) -> None:
    """The run whose log lies in a compiled folder, or is given; with its data set also samples that were taken wrong.

    Raises ArtefactError for another model's log, or without epochs, DataError for another data set.
    """
    import jinja2

    last = LastRun.read(out, log)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medyate.report", ""), undefined=jinja2.StrictUndefined, autoescape=True
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    page = environment.get_template("page.html.j2")
    artefact.write_bytes(path, page.render(**_content(last, dataset)).encode())


def _content(last: LastRun, dataset: Dataset | None) -> dict[str, Any]:
    log, plan, model = last.log, last.plan, last.model
    what = "loss" if log["accuracy_before"] is None else "accuracy"
    classes = [str(name) for name in model["classes"]]
    labels, predictions = _answers(log, len(classes))
    return {
        "version": VERSION,
        "plan": plan,
        "log": log,
        "what": what,
        "before": log[f"{what}_before"],
        "after": log[f"{what}_after"],
        "alone": log[f"{what}_head_only"],
        "facts": _facts(last),
        "settings": _settings(last),
        "history": _history(log),
        "signs": [sign["text"] for sign in log.get("warnings", [])],
        "figures": _figures(last),
        "matrix": _matrix(labels, predictions, classes) if 2 <= len(classes) <= CLASSES and len(labels) else None,
        "classes": classes,
        "errors": [] if dataset is None else _errors(last, dataset, labels, predictions, classes),
        "erases": (log.get("flash") or {}).get("bank_erases"),
    }


def _answers(log: Mapping[str, Any], classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(labels, predictions) of the test samples; empty in older logs, and where vectors are to be hit.

    Raises ArtefactError.
    """
    given = [log.get(key, []) for key in ("test_labels", "test_predictions")]
    if not all(artefact.fits(part, [range(classes).__contains__]) for part in given) or len(given[0]) != len(given[1]):
        raise ArtefactError("the log names classes that the model has not.", "Train again.")
    labels, predictions = (np.asarray(part, np.int64) for part in given)
    return labels, predictions


def _facts(last: LastRun) -> list[tuple[str, str, str]]:
    """(what, figure, note) of the headline."""
    log, plan = last.log, last.plan
    limit = plan["ram_limit_bytes"]
    used = log.get("ram_used_bytes")
    flash = last.model.get("flash_bytes")
    facts = [
        ("epochs", f"{log['epochs']}", f"of {log['planned_epochs']} planned, {log['epoch_samples']:,} samples each")
    ]
    if used is not None and log["target"] != "host":
        facts.append(("RAM used", f"{used:,} B", f"of {limit:,} B, measured: data, arena and stack"))
    else:
        facts.append(
            ("RAM planned", f"{plan['arena_planned_bytes']:,} B", f"of {limit:,} B, arena without static data")
        )
    if flash:
        facts.append(("flash", f"{flash:,} B", "code and factory weights"))
    if log.get("instructions_per_step"):
        facts.append(("a training step", f"{log['instructions_per_step']:,}", "instructions; they are not cycles"))
        found = cycles_on(BOARDS[log["target"]]) if log["target"] in BOARDS else None
        if found is not None:
            low, high = found.milliseconds(log["instructions_per_step"])
            note = f"an estimate at {found.clock_hz / 1e6:g} MHz, without {LEFT_OUT.partition(';')[0]}"
            facts.append(("a training step", f"{low:,.0f} .. {high:,.0f} ms", note))
    if log.get("ms_per_step"):
        facts.append(("a training step", f"{log['ms_per_step']:,} ms", "by the target's clock"))
    return facts


def _settings(last: LastRun) -> list[tuple[str, str]]:
    """What was run."""
    log = last.log
    chosen = [
        ("network", log["network"]),
        ("data", log["data"]),
        ("target", f"{log['target']}, on {log['on']}"),
        ("rate, clip", f"{log['rate']:g}, {log['clip']:g}, {log['schedule']}"),
        ("seed, batch", f"{log['seed']}, {log['batch']}"),
        ("augmentation", f"flips {'on' if log['flip'] else 'off'}, moves {log.get('shift', 0)} pixels"),
        ("trained at a time", f"{log['b_mem_bytes']:,} B = {log['b_mem_elements']:,} elements"),
        ("candidate layers", f"{log['candidate_layers']} of {log['total_layers']}"),
        ("model digest", f"0x{int(log['model_digest']):08x}"),
        ("run digest", log.get("digest", "the run did not end")),
        ("medyate", VERSION),
    ]
    return [(name, str(value)) for name, value in chosen]


def _history(log: Mapping[str, Any]) -> list[dict[str, Any]]:
    steps = max(1, log["epoch_samples"])
    return [
        {
            "epoch": entry["epoch"],
            "loss": entry["loss"],
            "accuracy": entry.get("accuracy"),
            "test_loss": entry.get("test_loss"),
            "selected": len(entry["selected"]),
            "saturated": entry.get("saturations", 0) / steps,
        }
        for entry in log["history"]
    ]


def _figures(last: LastRun) -> dict[str, str]:
    """The drawings, by name."""
    log, plan = last.log, last.plan
    values = [value for value in plan["values"] if value["bytes"] > 0]

    def memory(_: Any, axis: Any) -> dict[str, str]:
        memory_map(axis, plan, labels=False)
        return {f"value-{n}": f"{v['kind']} {v['name']}: {v['bytes']:,} B" for n, v in enumerate(values)}

    def saturation(_: Any, axis: Any) -> None:
        rows = _history(log)
        axis.bar([row["epoch"] for row in rows], [row["saturated"] for row in rows], color="#cc6677")
        axis.set(xlabel="epoch", ylabel="clipped gradients a step")

    def losses(_: Any, axis: Any) -> None:
        rows = _history(log)
        axis.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], marker="o", label="training")
        tested = [(row["epoch"], row["test_loss"]) for row in rows if row["test_loss"] is not None]
        if tested:
            axis.plot(*zip(*tested, strict=True), marker="o", label="test")
        axis.set(xlabel="epoch", ylabel="loss")
        axis.legend()
        axis.grid(alpha=0.4)

    layers = len(last.ranking["layers"])
    candidates = len(plan["candidates"])
    drawn = {
        "scores": draw_inline("scores", (6.4, 3.8), lambda _, axis: scores(axis, [(last.label, log)])),
        "losses": draw_inline("losses", (6.4, 3.8), losses),
        "memory": draw_inline("memory", (13.0, 5.0), memory),
        "lara": draw_inline("lara", (6.4, 1.6 + 0.17 * layers), lambda _, axis: lara(axis, plan, last.ranking)),
        "selected": draw_inline(
            "selected", (6.4, 1.6 + 0.17 * candidates), lambda figure, axis: selected(figure, axis, plan, log)
        ),
        "saturation": draw_inline("saturation", (6.4, 3.0), saturation),
    }
    if plan.get("regions"):
        drawn["areas"] = draw_inline("areas", (4.0, 5.0), lambda _, axis: areas(axis, plan["regions"]))
    return drawn


def _matrix(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: samples of a class by what they were taken for."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    rows = []
    for number, row in enumerate(counts):
        total = int(row.sum())
        shares = [int(count) / total if total else 0.0 for count in row]
        cells = [
            (int(count), share, column == number) for column, (count, share) in enumerate(zip(row, shares, strict=True))
        ]
        rows.append({"name": classes[number], "cells": cells, "total": total, "right": shares[number]})
    return rows


def _errors(
    last: LastRun,
    dataset: Dataset,
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    classes: Sequence[str],
) -> list[dict[str, str]]:
    """Samples that were taken for another class, as pictures. Raises DataError where the data set is another."""
    if dataset.regression or not len(labels):
        return []
    if not np.array_equal(dataset.y_test, labels):
        raise DataError(f"'{dataset.name}' is not what the run was tested with.", "Give the same --data.")
    samples = fit_samples(dataset.x_test, tuple(last.model["input_shape"]))
    wrong = np.flatnonzero(labels != predictions)[:ERRORS]
    return [
        {
            "picture": _picture(samples[number]),
            "text": f"{classes[labels[number]]}, taken for {classes[predictions[number]]}",
            "number": str(number),
        }
        for number in wrong
        if samples.shape[3] in (1, 3)
    ]


def _picture(sample: NDArray[Any]) -> str:
    """A PNG as a data address; the least value of what is no uint8 is black, the largest white."""
    from PIL import Image

    if sample.dtype != np.uint8:
        low, high = float(sample.min()), float(sample.max())
        sample = np.asarray(np.rint((sample - low) * (255.0 / ((high - low) or 1.0))), np.uint8)
    image = Image.fromarray(sample[..., 0] if sample.shape[2] == 1 else sample)
    scale = -(-SIDE // max(image.size))
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
