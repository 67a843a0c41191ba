# SPDX-License-Identifier: Apache-2.0
"""What a row of a frontend's table says: how an operation of the format is read, and what it becomes.

docs/ops.md is written from these rows, and they bind: while an operation is read, GraphBuilder takes nothing
that its row does not declare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from medyate.frontends.builder import GraphBuilder

GONE: Mapping[str, str] = {
    "name": "the same tensor under another name",
    "reading": "the same values, read under other sizes or in another order",
    "scale": "which integers stand for which real numbers",
    "size": "sizes, which are those of one sample",
    "end": "left out at the network's end, where a prediction does not need it",
    "constant": "computed from constants at import",
}
"""Why an operation of a format leaves nothing in the IR."""


class Reader(Protocol):
    """A frontend's importer."""

    builder: GraphBuilder


R = TypeVar("R", bound=Reader)
P = ParamSpec("P")


@dataclass(frozen=True)
class Row(Generic[R, P]):
    """One operation of a format. Called like its handler."""

    handler: Callable[Concatenate[R, P], None]
    makes: frozenset[str]
    """What it can become, by the name that builder.made gives; layout changes in front of it aside."""
    gone: str
    """Why it can leave nothing, a key of GONE; '' where it does so in special cases alone, as a clamp at infinity."""

    def __call__(self, i: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Reads one operation."""
        with i.builder.reading(self.makes):
            self.handler(i, *args, **kwargs)


def row(handler: Callable[Concatenate[R, P], None], *makes: str, gone: str = "") -> Row[R, P]:
    """A row, spelled short."""
    return Row(handler, frozenset(makes), gone)
