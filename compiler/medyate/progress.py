# SPDX-License-Identifier: Apache-2.0
"""The progress bar of every command that takes a while."""

from __future__ import annotations

import sys
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medyate.terminal import plain


class Bar:
    """A progress bar on standard error when that is a terminal; silent otherwise."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description:<14}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._progress = Progress(
            *columns, console=plain(stderr=True, soft_wrap=False), disable=not sys.stderr.isatty(), transient=True
        )
        self._task: Any = None
        self._phase = ""

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, phase: str, done: int, total: int, note: str = "") -> None:
        """Moves the bar; a new phase starts a new one."""
        if phase != self._phase:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(phase, total=total, note=note)
            self._phase = phase
        self._progress.update(self._task, completed=done, total=total, note=note)
