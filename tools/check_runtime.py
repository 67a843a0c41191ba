# SPDX-License-Identifier: Apache-2.0
"""Checks of the runtime: every header compiles alone, sources do not need each other in a circle, none has a variable.

    python tools/check_runtime.py

Headers are compiled as C11 and C++17 with the project's warnings. A source needs another if it calls a function or
reads a constant of it, whatever it includes; calls through a pointer do not count. All that changes is in what the
application owns, so that one program can have two models. Exit code 1: a finding.
"""

from __future__ import annotations

import graphlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medyate.assets import families, kernel_files

RUNTIME = Path(__file__).resolve().parent.parent / "runtime_c"
INCLUDE = RUNTIME / "include"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
CC = os.environ.get("CC", "cc")


def compiles(command: list[str], text: str) -> str:
    """What the compiler says of a file with this text; empty: nothing."""
    done = subprocess.run([*command, *WARNINGS, f"-I{INCLUDE}", "-fsyntax-only", "-"], input=text, text=True,
                          capture_output=True, check=False)  # fmt: skip
    return done.stderr if done.returncode != 0 or done.stderr else ""


def headers() -> list[str]:
    """Headers that do not compile alone."""
    cxx = next(filter(shutil.which, ("clang++", "g++", "c++")), None)
    if cxx is None:
        print("skipped: no C++ compiler; headers are checked as C only", file=sys.stderr)
    languages = [[CC, "-std=c11", "-xc"], *([[cxx, "-std=c++17", "-xc++"]] if cxx else [])]
    names = [str(path.relative_to(INCLUDE)) for path in sorted(INCLUDE.rglob("*.h"))]
    asked = [(name, language) for name in names for language in languages]
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda ask: compiles(ask[1], f'#include "{ask[0]}"\n'), asked)
        return [f"{name} as {language[1]}:\n{text}" for (name, language), text in zip(asked, said, strict=True) if text]


def symbols(objects: Iterable[Path]) -> tuple[Mapping[str, str], Mapping[str, set[str]], list[str]]:
    """Which object defines an external symbol, which ones an object lacks, and the variables of all."""
    owner: dict[str, str] = {}
    lacking: dict[str, set[str]] = {}
    variables = []
    for path in objects:
        lacking[path.stem] = set()
        listed = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
        for *_, kind, symbol in map(str.split, listed.splitlines()):
            if kind == "U":
                lacking[path.stem].add(symbol)
            elif kind.isupper():
                owner[symbol] = path.stem
            if kind in "bBcCdDsS":
                variables.append(f"a variable: {symbol} in {path.stem}")
    return owner, lacking, variables


def sources_of(family: str) -> list[str]:
    """Sources that need each other, and variables, with the kernels of a family."""
    sources = [*sorted((RUNTIME / "src").rglob("*.c")), *(RUNTIME / "kernels" / file for file in kernel_files(family))]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        objects = [Path(folder) / f"{source.relative_to(RUNTIME)}".replace("/", ".") for source in sources]
        list(pool.map(lambda pair: subprocess.run(
            [CC, "-std=c11", "-fno-pie", f"-I{INCLUDE}", "-c", str(pair[0]), "-o", f"{pair[1]}.o"], check=True,
        ), zip(sources, objects, strict=True)))  # fmt: skip
        owner, lacking, variables = symbols(Path(f"{path}.o") for path in objects)
    needs = {name: {owner[s] for s in missing if s in owner} - {name} for name, missing in lacking.items()}
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return [*variables, f"a circle: {' -> '.join(reversed(error.args[1]))}"]
    return variables


def main() -> None:
    """Prints what was found."""
    findings = headers() + [finding for family in families() for finding in sources_of(family)]
    for finding in findings:
        print(finding)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
