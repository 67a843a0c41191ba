# SPDX-License-Identifier: Apache-2.0
"""Where commands print. Nothing that is printed is markup: names, paths and messages may hold brackets and colons."""

from __future__ import annotations

from rich.console import Console


def plain(*, stderr: bool = False, soft_wrap: bool = True) -> Console:
    """A console that prints text as it is."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)


console = plain()
errors = plain(stderr=True)
