# SPDX-License-Identifier: Apache-2.0
"""A strategy's settings from the command line: NAME=VALUE."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from medyate.errors import DataError
from medyate.plan.budget import ALPHA
from medyate.strategies import find_strategy
from medyate.strategies.problem import Settings

TEXTS = ("scheme", "boost")
ELSEWHERE = ("budget", "alpha")
"""Options of their own."""


def settings(name: str, texts: Iterable[str], alpha: float, *, sampled_head: bool) -> Settings:
    """Raises DataError for a strategy or a setting that does not exist. A sampled head heeds alpha too."""
    heeded = [setting for setting in find_strategy(name).heeds if setting not in ELSEWHERE]
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in heeded:
            known = f"It has {', '.join(heeded)}; give one like {heeded[0]}=VALUE." if heeded else "It has no settings."
            raise DataError(f"'{name}' has no setting '{text}'.", known)
        found[key] = value if key in TEXTS else _value(value)
    if alpha != ALPHA and "alpha" not in find_strategy(name).heeds and not sampled_head:
        raise DataError(f"'{name}' does not use alpha.", "Leave out --alpha.")
    return Settings(alpha=alpha, **found)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
