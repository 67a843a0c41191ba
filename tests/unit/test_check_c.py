# SPDX-License-Identifier: Apache-2.0
"""The check of the C finds what it is for: a file that is not formatted, and faults that a compiler lets through."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_c import faults, sources, tidied, unformatted

CLEAN = """/* SPDX-License-Identifier: Apache-2.0 */
#include "mdy/fixed.h"

int32_t probe(int32_t a, int32_t b)
{
    return a < b ? a : b;
}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "probe.c"
    file.write_text(text)
    return file


def test_a_file_in_the_style_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path, CLEAN)
    assert list(unformatted([file])) == []
    assert list(faults([file])) == []


@pytest.mark.parametrize("change", [("    return", "  return"), ("(int32_t a, int32_t b)", "(int32_t a,\n int32_t b)")])
def test_another_style_is_found(tmp_path: Path, change: tuple[str, str]) -> None:
    assert len(list(unformatted([written(tmp_path, CLEAN.replace(*change))]))) == 1


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("return a < a ? a : b;", "misc-redundant-expression"),
        ("if (a < b)\n        return a;\n    else\n        return a;", "bugprone-branch-clone"),
        ("return a < b ? (int32_t)sizeof(sizeof(a)) : b;", "bugprone-sizeof-expression"),
        ("for (uint8_t i = 0; i < (uint32_t)b; i++) {\n        a++;\n    }\n    return a;", "bugprone-too-small-loop"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, change: str, check: str) -> None:
    found = list(faults([written(tmp_path, CLEAN.replace("return a < b ? a : b;", change))]))
    assert len(found) == 1 and check in found[0]


def test_all_c_is_looked_at() -> None:
    names = {file.name for file in sources()}
    assert {"mdy.h", "conv2d_kernels.c", "startup.c", "family_probe.c", "counter.c", "models.cc"} <= names
    assert {"store.c", "serve.c", "conv2d_kernels.c", "flash_emu.c"} <= {file.name for file in tidied()}
