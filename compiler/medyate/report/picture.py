# SPDX-License-Identifier: Apache-2.0
"""What a run did, in four panels: accuracy, memory over time, LaRa scores, selected channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medyate import artefact
from medyate.boards import KIB
from medyate.compiled import load_compiled
from medyate.errors import ArtefactError
from medyate.figure import new_figure, write_figure
from medyate.report.memory_map import COLOURS, memory_map
from medyate.run.log import read_log


@dataclass(frozen=True)
class LastRun:
    """The run whose log lies in a compiled folder, with what it trained."""

    model: Mapping[str, Any]
    plan: Mapping[str, Any]
    ranking: Mapping[str, Any]
    log: Mapping[str, Any]

    @staticmethod
    def read(out: Path, known: Mapping[str, Any] | None = None) -> LastRun:
        """`known`: its log, where that is at hand. Raises ArtefactError for another model's log, or without epochs."""
        model, plan = load_compiled(out)
        log = read_log(out / "run.json", int(model["digest"])) if known is None else known
        channels = sum(c["channels"] for c in plan["candidates"])
        if not log["history"]:
            raise ArtefactError("the last run ended before its first epoch did.", "Go on with `medyate run --resume`.")
        if any(not 0 <= channel < channels for entry in log["history"] for channel in entry["selected"]):
            raise ArtefactError(f"'{out / 'run.json'}' selects channels that the model has not.", "Train again.")
        return LastRun(model, plan, artefact.read_json(out / "04_ranking.json"), log)

    @property
    def label(self) -> str:
        """What was trained."""
        return "head only" if self.log["head_only"] else "selected channels and head"


def draw_last_run(out: Path, path: Path, log: Mapping[str, Any] | None = None) -> None:
    """The run whose log lies in a compiled folder, or is given. Raises what `LastRun.read` raises."""
    last = LastRun.read(out, log)
    draw(last.plan, last.ranking, [(last.label, last.log)], None, path)


def draw(
    plan: Mapping[str, Any],
    ranking: Mapping[str, Any],
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    reference: tuple[str, float] | None,
    path: Path,
) -> None:
    """Writes a PNG or SVG. `runs`: (label, run log), the trained one first."""
    figure, axes = new_figure(2, 2, (14, 9))
    scores(axes[0, 0], runs, reference)
    memory_map(axes[0, 1], plan, labels=False)
    axes[0, 1].set_title(
        f"Planned memory over one training step; beside it epoch {plan['epoch_bytes'] / KIB:,.1f}, "
        f"state {plan['state_bytes'] / KIB:,.1f} KiB",
        pad=18,
        fontsize="medium",
    )
    lara(axes[1, 0], plan, ranking)
    selected(figure, axes[1, 1], plan, runs[0][1])
    figure.suptitle(
        f"{plan['network']} on {runs[0][1]['target']}: {plan['arena_planned_bytes']:,} B of arena, "
        f"limit {plan['ram_limit_bytes']:,} B"
    )
    write_figure(figure, [path])


def scores(
    axis: Any, runs: Sequence[tuple[str, Mapping[str, Any]]], reference: tuple[str, float] | None = None
) -> None:
    """On the held-out samples; their loss where vectors are to be hit."""
    classes = all(log["accuracy_before"] is not None for _, log in runs)
    what, each = ("accuracy", "accuracy") if classes else ("loss", "test_loss")
    for label, log in runs:
        points = [(0, log[f"{what}_before"])]
        points += [(h["epoch"], h[each]) for h in log["history"] if h.get(each) is not None]
        axis.plot(*zip(*points, strict=True), marker="o", label=f"{label}: {points[-1][1]:.3f}")
    if reference is not None:
        axis.axhline(reference[1], color="black", linestyle=":", label=f"{reference[0]}: {reference[1]:.3f}")
    title = f"{what.capitalize()}, inferred on the target"
    axis.set(xlabel="epoch", ylabel=f"{what} on the held-out samples", title=title)
    axis.set_ylim(0, 1 if classes else None)
    axis.legend(loc="lower right" if classes else "upper right")
    axis.grid(alpha=0.3)


def lara(axis: Any, plan: Mapping[str, Any], ranking: Mapping[str, Any]) -> None:
    """The layers in their order, candidates in colour."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    layers = ranking["layers"]
    chosen = {c["layer"] for c in plan["candidates"]}
    positions = np.arange(len(layers))
    colours = [COLOURS["activation"] if layer["layer"] in chosen else "#cccccc" for layer in layers]
    axis.barh(positions, [layer["lara"] for layer in layers], color=colours)
    size = "small" if len(layers) <= 30 else 5
    axis.set_yticks(positions, [layer["layer"] for layer in layers], fontsize=size)
    axis.invert_yaxis()
    if any(layer["lara"] > 0 for layer in layers):
        axis.set_xscale("log")
    axis.set(xlabel="LaRa", title=f"Layer ranking; {len(chosen)} candidates in blue")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # text is not read as mathematics
    axis.xaxis.set_minor_formatter(NullFormatter())


def selected(figure: Any, axis: Any, plan: Mapping[str, Any], log: Mapping[str, Any]) -> None:
    """What share of each candidate layer's channels each epoch trained."""
    candidates = plan["candidates"]
    if not candidates:
        axis.set(title="No channels are selected", xticks=(), yticks=())
        return
    starts = np.cumsum([0] + [c["channels"] for c in candidates])
    shares = np.zeros((len(candidates), len(log["history"])))
    for column, epoch in enumerate(log["history"]):
        layer = np.searchsorted(starts, epoch["selected"], side="right") - 1
        counts = np.bincount(layer, minlength=len(candidates))
        shares[:, column] = counts / [c["channels"] for c in candidates]
    image = axis.imshow(shares, aspect="auto", vmin=0, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=axis, label="share of the layer's input channels")
    size = "small" if len(candidates) <= 30 else 5
    axis.set_yticks(range(len(candidates)), [c["layer"] for c in candidates], fontsize=size)
    axis.set_xticks(range(len(log["history"])), [str(h["epoch"]) for h in log["history"]])
    axis.set(xlabel="epoch", title="Channels selected per epoch")
