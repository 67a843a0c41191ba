# SPDX-License-Identifier: Apache-2.0
"""A minute of damaged files for every reader; tests/fuzz/importers.py does it for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuzz import importers

MINUTES = float(os.environ.get("MEDYATE_FUZZ_MINUTES", "1"))


def test_no_damaged_file_does_more_than_be_refused(tmp_path: Path) -> None:
    tally = importers.fuzz(MINUTES, 1, tmp_path / "found")
    assert tally.findings == {}
    assert set(tally.executions) >= {".tflite", ".onnx", ".pt2", ".npz", ".pkl", ".json", ".toml"}
    assert min(tally.outcomes["read"], tally.outcomes["refused"]) > 0


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        ("raise ValueError('lost')", "ValueError: lost"),
        ("import os; os._exit(7)", "the reader died (7)"),
        ("import time; time.sleep(60)", "it took more than"),
        ("hold = b'x' * (1 << 28)", " B"),
    ],
)
def test_the_fuzz_finds_what_it_looks_for(
    misbehave: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importers, "read", lambda _: exec(misbehave, {}))
    monkeypatch.setattr(importers, "SECONDS_MAX", 2.0 if "sleep" in misbehave else 20.0)
    monkeypatch.setattr(importers, "MEMORY_MAX", 1 << 27)
    reader = importers.Reader()
    try:
        assert words in reader.read(tmp_path / "any")
    finally:
        reader.stop()
