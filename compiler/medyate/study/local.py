# SPDX-License-Identifier: Apache-2.0
"""Work in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from medyate.study.job import Outcome, Work, work

ATTEMPTS = 3
"""How often a job is begun whose process dies, for want of memory say."""


def run(jobs: Sequence[Work], workers: int) -> Iterator[Outcome]:
    """Outcomes as they come; a process that dies is replaced, and its job begun anew."""
    left, attempts = list(jobs), dict.fromkeys((job.key for job in jobs), 0)
    while left:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
        try:
            for outcome in _in_pool(pool, left, workers, attempts):
                left = [job for job in left if job.key != outcome.key]
                yield outcome
        except BrokenProcessPool:
            for job in [job for job in left if attempts[job.key] >= ATTEMPTS]:
                left.remove(job)
                yield Outcome(job.key, None, f"its process died {ATTEMPTS} times.")
        finally:
            pool.shutdown(wait=not left, cancel_futures=True)


def _in_pool(
    pool: ProcessPoolExecutor, jobs: Sequence[Work], workers: int, attempts: dict[str, int]
) -> Iterator[Outcome]:
    """No more than one job per process is handed out, so that only those can be lost."""
    waiting, running = list(jobs), dict[Future[Outcome], Work]()
    while waiting or running:
        while waiting and len(running) < workers:
            job = waiting.pop(0)
            attempts[job.key] += 1
            running[pool.submit(work, job)] = job
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        ended = sorted(((running.pop(future), future) for future in done), key=lambda pair: _died(pair[1]))
        for job, future in ended:  # those that are whole first
            reason = future.exception()
            if _died(future):
                future.result()  # raises
            yield future.result() if reason is None else Outcome(job.key, None, f"{type(reason).__name__}: {reason}")


def _died(future: Future[Outcome]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _end_with_parent() -> None:
    """A killed study leaves no processes behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
