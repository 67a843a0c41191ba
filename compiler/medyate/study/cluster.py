# SPDX-License-Identifier: Apache-2.0
"""The same work on a Ray cluster; every machine needs medyate and sees networks and data under the same paths."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from medyate.errors import ToolchainError
from medyate.study.job import Outcome, Work, work

LOCAL = "local"
RETRIES = 3
"""How often a job is begun anew whose worker or machine dies."""


def run(jobs: Sequence[Work], address: str) -> Iterator[Outcome]:
    """Outcomes as they come; `address`: of a cluster's head, or 'local'. Raises ToolchainError."""
    import ray

    _check(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports home unless it is told not to
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ToolchainError(f"no Ray cluster answers at '{address}'.", "Check --cluster, or use 'local'.") from error
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(work)
    pending: dict[Any, Work] = {task.remote(job): job for job in jobs}
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1)
            for reference in ready:
                job = pending.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield Outcome(job.key, None, f"its worker was lost: {str(error).splitlines()[0]}")
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _check(address: str) -> None:
    """Ray would wait for an address that nobody answers at for many minutes. Raises ToolchainError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == LOCAL:
        return
    try:
        with socket.create_connection((host, int(port)), timeout=10.0):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ToolchainError(
            f"no Ray cluster answers at '{address}'.", "Give --cluster HOST:PORT, or local."
        ) from error
