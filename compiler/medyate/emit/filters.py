# SPDX-License-Identifier: Apache-2.0
"""Python values to C text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from medyate.errors import ModelError

KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    ]
)
RESERVED = (
    "head",
    "head_w",
    "head_b",
    "candidates",
    "eligible",
    "norm_start",
    "exponents",
    "forward",
    "backward",
    "input",
    "m",
    "stage",
    "row",
)
"""Names that the templates use."""
SUFFIXES = (
    *("_w", "_p", "_y", "_dy", "_n", "_bias", "_mult", "_shift", "_table", "_slope", "_first", "_mask"),
    *("_grad_mult", "_rate_mult", "_rate_exponent"),
)
"""Endings of the names made from a layer's: its arrays, parameters, output and gradient."""
WIDTH = 100
IDENT_MAX = 48


def c_ident(name: str) -> str:
    """A C identifier for a network's name: every other character becomes '_'.

    Of a path like /blocks/blocks.0/Conv, parts that only repeat the beginning of the next are dropped.
    """
    parts = [part for part in name.split("/") if part]
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=False) if not after.startswith(part)]
    ident = re.sub(r"\W", "_", "_".join(kept), flags=re.ASCII).strip("_") or "x"
    ident = re.sub(r"_+", "_", ident)
    if len(ident) > IDENT_MAX:  # the end of a path says most; cut it where a part begins
        ident = ident[-IDENT_MAX:].partition("_")[2] or ident[-IDENT_MAX:]
    return f"n_{ident}" if ident[0].isdigit() or ident in KEYWORDS else ident


def unique_idents(names: Iterable[str]) -> dict[str, str]:
    """One identifier per name. Raises ModelError when a name cannot be made unique."""
    found: dict[str, str] = {}
    used: set[str] = set(RESERVED)
    for name in names:
        base = c_ident(name)
        if base.endswith(SUFFIXES) or re.search(r"_again\d+$", base) or base.startswith(("mdy", "join", "stream")):
            base += "_n"
        ident = base
        number = 2
        while ident in used:
            ident = f"{base}_{number}"
            number += 1
        if number > 1000:
            raise ModelError(f"more than 1,000 layers are called like '{name}'.", "Rename them.")
        used.add(ident)
        found[name] = ident
    return found


def c_comment(text: str) -> str:
    """Text that cannot open or close a C comment or leave ASCII."""
    return text.encode("ascii", "replace").decode().replace("*/", "* /").replace("/*", "/ *").replace("\n", " ")


def c_string(text: str) -> str:
    """Text as a C string literal of printable ASCII."""
    plain = "".join(c if " " <= c <= "~" and c != "?" else "_" for c in text)  # '?' could begin a trigraph
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def c_array(values: Sequence[int]) -> str:
    """Comma-separated integers, wrapped and indented by four."""
    lines: list[str] = []
    line = "   "
    for value in values:
        piece = f" {value},"
        if len(line) + len(piece) > WIDTH:
            lines.append(line)
            line = "   "
        line += piece
    return "\n".join([*lines, line])
