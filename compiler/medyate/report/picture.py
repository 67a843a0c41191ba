# SPDX-License-Identifier: Apache-2.0
"""What a run did, in four panels: accuracy, memory over time, LaRa scores, selected channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medyate.report.figure import figure, save

COLOURS = {"activation": "#4477aa", "gradient": "#ee6677", "mask": "#ccbb44", "scratch": "#999999"}


def draw(
    plan: Mapping[str, Any],
    ranking: Mapping[str, Any],
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    reference: tuple[str, float] | None,
    path: Path,
) -> None:
    """Writes a PNG. `runs`: (label, run log), the trained one first. Raises ToolchainError without matplotlib."""
    made, axes = figure(2, 2, (14, 9))
    _accuracy(axes[0, 0], runs, reference)
    _memory(axes[0, 1], plan)
    _lara(axes[1, 0], plan, ranking)
    _selected(made, axes[1, 1], plan, runs[0][1])
    made.suptitle(
        f"{plan['network']} on {runs[0][1]['target']}: {plan['arena_planned_bytes']:,} B of arena, "
        f"limit {plan['ram_limit_bytes']:,} B"
    )
    save(made, path)


def _accuracy(axis: Any, runs: Sequence[tuple[str, Mapping[str, Any]]], reference: tuple[str, float] | None) -> None:
    for label, log in runs:
        points = [(0, log["accuracy_before"])]
        points += [(h["epoch"], h["accuracy"]) for h in log["history"] if "accuracy" in h]
        axis.plot(*zip(*points, strict=True), marker="o", label=f"{label}: {log['accuracy_after']:.3f}")
    if reference is not None:
        axis.axhline(reference[1], color="black", linestyle=":", label=f"{reference[0]}: {reference[1]:.3f}")
    axis.set(
        xlabel="epoch", ylabel="accuracy on the held-out samples", ylim=(0, 1), title="Accuracy, inferred on the target"
    )
    axis.legend(loc="lower right")
    axis.grid(alpha=0.3)


def _memory(axis: Any, plan: Mapping[str, Any]) -> None:
    from matplotlib.patches import Patch

    values = plan["values"]
    for value in values:
        axis.bar(
            value["first"],
            value["bytes"],
            value["last"] - value["first"] + 1,
            value["offset"],
            align="edge",
            color=COLOURS[value["kind"]],
            edgecolor="white",
            linewidth=0.3,
        )
    steps = max(value["last"] for value in values) + 1
    epoch = plan["planned_bytes"]
    state = epoch + plan["epoch_bytes"]
    axis.bar(0, plan["epoch_bytes"], steps, epoch, align="edge", color="#228833", alpha=0.5)
    axis.bar(0, plan["state_bytes"], steps, state, align="edge", color="#aa3377", alpha=0.5)
    handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    handles += [Patch(color="#228833", alpha=0.5, label="epoch region: deltas, saved maps")]
    handles += [Patch(color="#aa3377", alpha=0.5, label="state region: head, norms")]
    axis.legend(handles=handles, loc="upper right", fontsize="small")
    top = plan["arena_bytes"]
    axis.set(
        xlabel="step: forward, head, backward",
        ylabel="byte of the arena",
        xlim=(0, steps),
        ylim=(0, 1.6 * top),
        title="Memory map over one training step",
    )


def _lara(axis: Any, plan: Mapping[str, Any], ranking: Mapping[str, Any]) -> None:
    from matplotlib.ticker import NullFormatter

    layers = ranking["layers"]
    chosen = {c["layer"] for c in plan["candidates"]}
    positions = np.arange(len(layers))
    colours = [COLOURS["activation"] if layer["layer"] in chosen else "#cccccc" for layer in layers]
    axis.barh(positions, [layer["lara"] for layer in layers], color=colours)
    size = "small" if len(layers) <= 30 else 5
    axis.set_yticks(positions, [layer["layer"] for layer in layers], fontsize=size)
    axis.invert_yaxis()
    axis.set(xlabel="LaRa", xscale="log", title=f"Layer ranking; {len(chosen)} candidates in blue")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _selected(figure: Any, axis: Any, plan: Mapping[str, Any], log: Mapping[str, Any]) -> None:
    candidates = plan["candidates"]
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
