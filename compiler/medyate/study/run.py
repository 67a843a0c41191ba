# SPDX-License-Identifier: Apache-2.0
"""Carries a study out: what is not stored yet is handed to workers, and every result is stored as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medyate import datasets, frontends
from medyate.extras import require
from medyate.study import spec
from medyate.study.job import Outcome, Work, rank_work
from medyate.study.spec import Cell, RankJob, Study
from medyate.study.store import Store, writing

Backend = Callable[[Sequence[Work]], Iterator[Outcome]]
Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Summary:
    """What a run of a study did."""

    cells: int
    before: int
    """Cells that had a result already."""
    failed: tuple[str, ...]
    """Keys of the cells that have none."""


def check_packages(study: Study) -> None:
    """Raises MedyateError when a package is missing that a cell needs: before all of them fail for it."""
    require("a study", "torch")
    if any(cell.facts.stability for cell in study.cells):
        require("a study of stability", "scipy")
    for network in {cell.network for cell in study.cells}:
        frontends.check(Path(network))
    for name in {source for cell in study.cells for source in (cell.data, cell.ranking.data)}:
        datasets.check(spec.located(study.folder, name))


def run(study: Study, path: Path, backend: Backend, progress: Progress) -> Summary:
    """Runs what is missing. A cell whose ranking failed fails with it."""
    check_packages(study)
    with writing(path) as store:
        before = store.done()
        open_ = [cell for cell in study.cells if cell.key not in before]
        reasons = _rank(study, open_, store, backend, progress)
        _train(study, open_, reasons, store, backend, progress)
        done = store.done()
    keys = [cell.key for cell in study.cells]
    return Summary(len(keys), sum(key in before for key in keys), tuple(key for key in keys if key not in done))


def _rank(study: Study, cells: Sequence[Cell], store: Store, backend: Backend, progress: Progress) -> dict[str, str]:
    """Makes the rankings that are missing; reasons of those that failed, by key."""
    known = store.rankings()
    wanted = {cell.ranking.key for cell in cells}
    jobs = [rank_work(_placed(job, study)) for job in study.rankings if job.key in wanted and job.key not in known]
    keys = [job.key for job in study.rankings if job.key in wanted and job.key not in known]
    own = {job.key: key for job, key in zip(jobs, keys, strict=True)}  # with and without the study's folder
    reasons = {}
    progress("rank", 0, max(1, len(jobs)), "")
    for count, outcome in enumerate(backend(jobs) if jobs else (), 1):
        if outcome.result is None:
            reasons[own[outcome.key]] = str(outcome.error)
        else:
            store.add_ranking(own[outcome.key], outcome.result)
        progress("rank", count, len(jobs), "")
    return reasons


def _placed(job: RankJob, study: Study) -> RankJob:
    return replace(job, network=spec.located(study.folder, job.network), data=spec.located(study.folder, job.data))


def _train(
    study: Study,
    cells: Sequence[Cell],
    reasons: dict[str, str],
    store: Store,
    backend: Backend,
    progress: Progress,
) -> None:
    rankings, by_key, jobs = store.rankings(), {cell.key: cell for cell in cells}, []
    for cell in cells:
        if cell.ranking.key in reasons:
            store.add(cell, None, reasons[cell.ranking.key])
            continue
        placed = spec.with_folder(cell, study.folder)
        jobs.append(Work(cell.key, placed.to_json(), None, rankings[cell.ranking.key]))
    progress("train", 0, max(1, len(jobs)), "")
    for count, outcome in enumerate(backend(jobs) if jobs else (), 1):
        cell = by_key[outcome.key]
        store.add(cell, outcome.result, outcome.error)
        note = f"{cell.label}: " + (f"{outcome.result['accuracy']:.3f}" if outcome.result else str(outcome.error))
        progress("train", count, len(jobs), note)
