# SPDX-License-Identifier: Apache-2.0
"""A part in a process of its own, whose UART is a pseudo-terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def serve(*arguments: object) -> subprocess.Popen[str]:
    """`python -m tests.boards.serve`."""
    paths = os.pathsep.join(filter(None, (str(REPOSITORY / "compiler"), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "tests.boards.serve", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )


@dataclass
class Served:
    """A part that runs; `on` is the option's value for it."""

    on: str
    process: subprocess.Popen[str]
    report: dict[str, Any] = field(default_factory=dict)
    """Once it has ended."""


@contextmanager
def served(name: str, image: Path, *arguments: object) -> Iterator[Served]:
    """A part with an image in its flash, until it is no longer needed."""
    with serve(name, image, *arguments) as process:
        assert process.stdout is not None
        part = Served(f"serial:{process.stdout.readline().split()[1]}", process)
        try:
            yield part
        finally:
            process.terminate()
            last = process.stdout.read().splitlines()
        part.report = json.loads(last[-1])
