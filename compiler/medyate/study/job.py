# SPDX-License-Identifier: Apache-2.0
"""One unit of work of a study as a plain function from JSON to JSON, for any process on any machine."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from medyate.errors import MedyateError
from medyate.rank.lara import Ranking
from medyate.study.spec import Cell, RankJob
from medyate.study.task import load_task


@dataclass(frozen=True)
class Work:
    """A cell with the ranking it needs, or a ranking that is to be made."""

    key: str
    cell: dict[str, Any] | None
    rank: dict[str, Any] | None
    ranking: dict[str, Any] | None


@dataclass(frozen=True)
class Outcome:
    """What came of it: a result or the reason why not."""

    key: str
    result: dict[str, Any] | None
    error: str | None


def work(job: Work) -> Outcome:
    """Does it; the user's mistakes come back as the reason."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        began = time.monotonic()
        result = _rank(RankJob.from_json(job.rank)) if job.rank is not None else _train(job)
        return Outcome(job.key, {**result, "seconds": round(time.monotonic() - began, 1)}, None)
    except MedyateError as error:
        return Outcome(job.key, None, str(error))


def _train(job: Work) -> dict[str, Any]:
    assert job.cell is not None and job.ranking is not None
    cell = Cell.from_json(job.cell)
    if cell.facts.engine == "device":
        from medyate.study.twin import train

        return train(cell, job.ranking)
    from medyate.study.floats import train as train_floats

    task = load_task(cell.network, cell.data, cell.facts.samples)
    return train_floats(cell, task, Ranking.from_json(job.ranking, task.normal.graph))


def _rank(job: RankJob) -> dict[str, Any]:
    from medyate.rank.collect import collect
    from medyate.rank.lara import rank
    from medyate.rank.provenance import provenance

    task = load_task(job.network, job.data, job.samples)
    collected = collect(
        task.normal.graph,
        task.normal.weights,
        task.samples["train"],
        task.dataset.y_train,
        outputs=task.dataset.outputs,
        epochs=job.epochs,
        seed=job.seed,
        progress=lambda _done, _total: None,
    )
    made = provenance(task.dataset, task.normal.weights, job.epochs, job.seed)
    return rank(task.normal.graph, task.dataset.name, collected.norms, made).to_json()


def rank_work(job: RankJob) -> Work:
    """A ranking to be made."""
    return Work(job.key, None, asdict(job), None)
