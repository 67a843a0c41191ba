# SPDX-License-Identifier: Apache-2.0
"""Runtime sources and a test's own C file as a shared library."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME = HERE.parent / "runtime_c"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror")
"""Without -Wconversion: the sanitizer rewrites shifts so that gcc warns of conversions it added itself."""
STEPS = ("src/view.c", "src/gradient.c", "src/fixed.c")
"""What every operation's steps call."""
UNDEFINED = ("-fsanitize=undefined", "-fno-sanitize-recover=undefined")


def load(source: str, folder: Path, runtime: Sequence[str], *, flags: Sequence[str] = UNDEFINED) -> ctypes.CDLL:
    """Compiles tests/c/<source> with `runtime` files (patterns below runtime_c) and loads the result."""
    files = [file for pattern in runtime for file in sorted(RUNTIME.glob(pattern))]
    library = folder / f"{Path(source).stem}.so"
    command = [os.environ.get("CC", "cc"), "-std=c11", "-O1", "-g", *WARNINGS, *flags, "-shared", "-fPIC"]
    command += [f"-I{RUNTIME / 'include'}", f"-I{RUNTIME / 'ports' / 'emu'}", str(HERE / "c" / source)]
    command += [*map(str, files), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))
