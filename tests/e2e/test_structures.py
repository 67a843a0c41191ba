# SPDX-License-Identifier: Apache-2.0
"""Every structure in every format imports and computes what the format's own runtime computes; long: it trains too."""

from __future__ import annotations

from pathlib import Path

import pytest

from medyate.check import check
from medyate.stages import silent
from shared_files import some_long
from structures import FORMS, NAMES, build

CASES = [(name, form) for name in NAMES for form in FORMS]
SHORT = frozenset({"1x1 convolution, mean", "factors and summands", "difference", "transposed convolution"})


@pytest.mark.parametrize(("name", "form"), some_long(CASES, lambda case: case[0] not in SHORT))
def test_a_structure_is_what_its_format_computes(name: str, form: str, tmp_path: Path) -> None:
    path = build(name, form, tmp_path)
    if path is None:
        pytest.skip("the format has no such structure")
    report = check(path, "host", 20, None, "auto", 0, silent)
    assert report.match, report.faults
