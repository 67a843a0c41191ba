# SPDX-License-Identifier: Apache-2.0
"""A minute each of hostile banks and requests under the sanitizers; `tools/fuzz_runtime.py` runs for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzing import build, fuzz
from medyate.run.train import Compiled
from tiny import compile_tiny

SECONDS = 60


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """All channels, always, and biases."""
    return compile_tiny(tmp_path_factory.mktemp("full"), flash=None, strategy="full", head_start="keep")


@pytest.mark.parametrize(
    ("harness", "network", "least"),
    [("banks", "selected channels", 1500), ("banks", "biases", 1500), ("link", "selected channels", 4000)],
)
def test_hostile_input_breaks_nothing(
    harness: str, network: str, least: int, tiny_host: Compiled, biased: Compiled, tmp_path: Path
) -> None:
    program = build(harness, tiny_host if network == "selected channels" else biased, tmp_path)
    assert fuzz(program, f"-max_total_time={SECONDS}", "-seed=1") >= least
