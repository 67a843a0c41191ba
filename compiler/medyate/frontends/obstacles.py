# SPDX-License-Identifier: Apache-2.0
"""All that keeps a network from being imported, in one refusal: a reader wants the whole list, not its first line."""

from __future__ import annotations

from collections.abc import Mapping

from medyate.errors import UnsupportedOpError

NAMED = 3
"""Nodes that a line names."""
WANTS: Mapping[str, str] = {
    "lstm": "it would need an operation that keeps state from step to step",
    "gru": "it would need an operation that keeps state from step to step",
    "rnn": "it would need an operation that keeps state from step to step",
    "svdf": "it would need an operation that keeps state from step to step",
    "var_handle": "it would need state that is kept between inferences",
    "call_once": "it would need state that is kept between inferences",
    "_norm": "it would need an operation that divides values by their own deviation; batch norms are supported",
    "normalization": "it would need an operation that divides values by their own deviation; batch norms are supported",
    "std": "it would need an operation that takes the deviation of values",
    "bilinear": "it would need an operation that enlarges between pixels; the nearest pixel is supported",
    "nonmaxsuppression": "leave it out of the file: the application does it",
    "non_max_suppression": "leave it out of the file: the application does it",
    "detection_postprocess": "leave it out of the file: the application does it",
    "topk": "leave it out of the file: the application does it",
    "embedding": "it would need an operation that looks up rows",
    "gather": "it would need an operation that looks up rows",
}
"""What an operation would need, by a part of its name."""


def wanted(op: str) -> str:
    """What an operation would need, if that is known."""
    name = op.lower()
    return next((text for part, text in WANTS.items() if part in name), "")


class Obstacles:
    """Collects refusals while the rest of a network is read."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.found: list[UnsupportedOpError] = []

    def add(self, error: UnsupportedOpError) -> None:
        """One more."""
        self.found.append(error)

    def check(self) -> None:
        """Raises UnsupportedOpError, for the first node, with all that was found."""
        if not self.found:
            return
        first = self.found[0]
        if len(self.found) == 1:
            raise first
        groups: dict[tuple[str, str], list[str]] = {}
        for error in self.found:
            groups.setdefault((error.op, error.why), []).append(error.node)
        lines = [_line(op, why, nodes) for (op, why), nodes in groups.items()]
        error = UnsupportedOpError(first.node, first.op, first.why, first.supported)
        error.what = f"{len(self.found)} nodes of '{self.network}' cannot be imported. {' '.join(lines)}"
        error.args = (f"{error.what} {error.remedy}",)
        raise error from first


def _line(op: str, why: str, nodes: list[str]) -> str:
    names = ", ".join(f"'{node}'" for node in nodes[:NAMED])
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    count = f"{len(nodes)} times " if len(nodes) > 1 else ""
    return f"{count}{op} ({names}{more}): {why}."
