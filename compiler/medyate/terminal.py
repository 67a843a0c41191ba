# SPDX-License-Identifier: Apache-2.0
"""Where commands print. Nothing that is printed is markup: names, paths and messages may hold brackets and colons."""

from __future__ import annotations

from typing import IO

from rich.console import Console

WIDTH = 120
"""Columns of text that goes elsewhere than to a terminal."""


def plain(*, stderr: bool = False, soft_wrap: bool = True, file: IO[str] | None = None) -> Console:
    """A console that prints text as it is; into a file if one is given."""
    width = None if file is None else WIDTH
    return Console(
        stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False, file=file, width=width
    )


console = plain()
errors = plain(stderr=True)
