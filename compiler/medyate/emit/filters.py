# SPDX-License-Identifier: Apache-2.0
"""Python values to C text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

PREFIX = "n_"
"""In front of all that is called after something of the network: no keyword, macro or name of others begins so."""
DERIVED = "__"
"""In front of what is derived from an identifier, none of which has two underscores in a row."""
WIDTH = 100
IDENT_MAX = 48


def telling_parts(name: str) -> list[str]:
    """Of a path like /blocks/blocks.0/Conv, the parts that do not only repeat the beginning of the next."""
    parts = [part for part in name.split("/") if part]
    return [part for part, after in zip(parts, [*parts[1:], ""], strict=False) if not after.startswith(part)]


def c_ident(name: str) -> str:
    """A C identifier for a network's name: every other character becomes '_', and never two in a row."""
    ident = re.sub(r"[\W_]+", "_", "_".join(telling_parts(name)), flags=re.ASCII).strip("_") or "x"
    if len(ident) > IDENT_MAX:  # the end of a path says most; cut it where a part begins
        ident = ident[-IDENT_MAX:].partition("_")[2] or ident[-IDENT_MAX:]
    return PREFIX + ident


def unique_idents(names: Iterable[str]) -> dict[str, str]:
    """One identifier per name."""
    found: dict[str, str] = {}
    used: set[str] = set()
    last: dict[str, int] = {}
    for name in names:
        ident = base = c_ident(name)
        while ident in used:
            last[base] = last.get(base, 1) + 1
            ident = f"{base}_{last[base]}"
        used.add(ident)
        found[name] = ident
    return found


def derived(ident: str, what: str) -> str:
    """What belongs to an identifier of `unique_idents`: an array, a table, a tensor, a gradient."""
    return f"{ident}{DERIVED}{what}"


def c_comment(text: str) -> str:
    """Text that cannot open or close a C comment or leave printable ASCII."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")


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
