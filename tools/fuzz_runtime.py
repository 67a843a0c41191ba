# SPDX-License-Identifier: Apache-2.0
"""Hostile banks and requests by libFuzzer, under the address and undefined-behaviour sanitizers.

    python tools/fuzz_runtime.py banks|link [--seconds 600] [--seed 1]

On three compilations of a small network: selected channels, all channels with biases, and a sampled head. Exit code 1
where one of them breaks; libFuzzer's message says where.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzzing import build, fuzz
from tiny import compile_tiny

NETWORKS: dict[str, dict[str, Any]] = {
    "selected channels": {},
    "all channels, biases": {"flash": None, "strategy": "full", "head_start": "keep"},
    "sampled head": {"head": "sampled", "batch": 2},
}


def main() -> int:
    """Prints how many inputs were executed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("harness", choices=("banks", "link"))
    parser.add_argument("--seconds", type=int, default=600, help="over all networks")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        for i, (network, options) in enumerate(NETWORKS.items()):
            folder = Path(name) / str(i)
            folder.mkdir()
            program = build(given.harness, compile_tiny(folder, **options), folder)
            try:
                executed = fuzz(program, f"-max_total_time={given.seconds // len(NETWORKS)}", f"-seed={given.seed}")
            except AssertionError as error:
                print(f"{given.harness}, {network}: {error}", file=sys.stderr)
                return 1
            print(f"{given.harness}, {network}: {executed:,} inputs, none of them broke anything", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
