# SPDX-License-Identifier: Apache-2.0
"""Checks of the C: whether it is formatted (.clang-format), and what clang-tidy finds in the runtime (.clang-tidy).

    python tools/check_c.py [--fix]

--fix formats it. Both programs are Python packages of the dev extra, so that every machine has the same version. Exit
code 1: a finding.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "runtime_c"
EMULATOR = RUNTIME / "ports" / "emu"
INCLUDES = (f"-I{RUNTIME / 'include'}", f"-I{EMULATOR}")
FOLDERS = ("compiler", "firmware", "runtime_c", "tests")
BIN = Path(sys.executable).parent


def sources() -> list[Path]:
    """All C and C++ of the repository; templates of generated files are none yet."""
    found = chain.from_iterable((ROOT / folder).rglob(f"*.{kind}") for folder in FOLDERS for kind in ("c", "h", "cc"))
    return sorted(file for file in found if "build" not in file.relative_to(ROOT).parts)


def tidied() -> list[Path]:
    """What clang-tidy looks at: the files that need nothing generated, with the headers that they include."""
    return sorted(chain((RUNTIME / "src").rglob("*.c"), (RUNTIME / "kernels").rglob("*.c"), EMULATOR.glob("*.c")))


def unformatted(files: Iterable[Path]) -> Iterator[str]:
    """A line for each file that clang-format would change."""
    for file in files:
        own = file.read_bytes()
        command = [BIN / "clang-format", f"--style=file:{ROOT / '.clang-format'}", str(file)]
        if subprocess.run(command, capture_output=True, check=True).stdout != own:
            yield f"{file}: not formatted; `python tools/check_c.py --fix` does it"


def faults(files: Sequence[Path]) -> Iterator[str]:
    """What clang-tidy says of each file with a finding."""

    def look(file: Path) -> str:
        command = [BIN / "clang-tidy", "--quiet", f"--config-file={ROOT / '.clang-tidy'}", str(file)]
        done = subprocess.run([*command, "--", "-std=c11", *INCLUDES], capture_output=True, text=True, check=False)
        return done.stdout or (done.stderr if done.returncode != 0 else "")

    with ThreadPoolExecutor() as pool:
        yield from filter(None, pool.map(look, files))


def main() -> None:
    """Prints every finding."""
    files = sources()
    if "--fix" in sys.argv[1:]:
        subprocess.run([BIN / "clang-format", "-i", *map(str, files)], check=True, cwd=ROOT)
        return
    found = [*unformatted(files), *faults(tidied())]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
