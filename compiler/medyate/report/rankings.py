# SPDX-License-Identifier: Apache-2.0
"""How alike rankings are: Spearman's correlation of the layers' scores, for every pair.

Source: MeDyate, arXiv 2510.20979, fig. 3 (all pairs of tasks and seeds are above 0.8 there).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import artefact, files
from medyate.errors import ArtefactError, DataError
from medyate.rank.lara import COVERAGE, check_scores, covering

SCORES = ("lara", "trady")


def compare(paths: Sequence[Path]) -> dict[str, Any]:
    """Matrices by score over the files, in their order, and TraDy's K of each ("covering").

    Raises ArtefactError, DataError.
    """
    if len(paths) < 2:
        raise DataError("one ranking alone cannot be compared.", "Give at least two files.")
    contents = [artefact.read_json(path) for path in paths]
    matrices = {score: matrix(contents, score) for score in SCORES}
    names = [label(content) for content in contents]
    return {
        "files": [str(path) for path in paths],
        "rankings": names,
        "layers": len(contents[0]["layers"]),
        "covering": [covering(list(_scores(content, "trady").values()), COVERAGE) for content in contents],
        **{score: found.round(6).tolist() for score, found in matrices.items()},
    }


def matrix(rankings: Sequence[Mapping[str, Any]], score: str) -> NDArray[np.float64]:
    """Spearman's correlations of stored rankings of one network."""
    from scipy import stats

    tables = [_scores(ranking, score) for ranking in rankings]
    if len({frozenset(table) for table in tables}) > 1:
        raise ArtefactError("the rankings are of networks with different layers.", "Compare rankings of one network.")
    columns = [[table[layer] for layer in tables[0]] for table in tables]
    found = np.eye(len(columns))
    for i, j in zip(*np.triu_indices(len(columns), 1), strict=True):
        found[i, j] = found[j, i] = stats.spearmanr(columns[i], columns[j]).statistic
    return found


def label(ranking: Mapping[str, Any]) -> str:
    """Network, task and seed."""
    made = ranking.get("made")
    seed = f", seed {made['seed']}" if isinstance(made, Mapping) and "seed" in made else ""
    return f"{ranking.get('network')} on {ranking.get('task')}{seed}"


def _scores(ranking: Mapping[str, Any], score: str) -> dict[str, float]:
    with files.boundary(ArtefactError, "a ranking is damaged", "Run `medyate rank` again."):
        scores = [(str(layer["layer"]), float(layer[score])) for layer in ranking["layers"]]
    check_scores(scores, each=1, least=-sys.float_info.max)  # any that can be compared
    if len(scores) < 2:
        raise ArtefactError("a ranking holds too few layers.", "Run `medyate rank` again.")
    return dict(scores)


def draw(names: Sequence[str], matrices: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """The matrices side by side as PNG or SVG."""
    from medyate.figure import new_figure, write_figure

    shown, axes = new_figure(1, len(matrices), (2 + 4.5 * len(matrices), 4.5))
    for axis, (score, values) in zip(axes.flat, matrices.items(), strict=True):
        axis.imshow(values, vmin=0.0, vmax=1.0, cmap="viridis")
        for (row, column), value in np.ndenumerate(values):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
        axis.set(title=f"Spearman, {score}", xticks=range(len(names)), yticks=range(len(names)))
        axis.set_xticklabels(names, rotation=30, ha="right", fontsize=7)
        axis.set_yticklabels(names, fontsize=7)
    write_figure(shown, [path])
