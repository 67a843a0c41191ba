# SPDX-License-Identifier: Apache-2.0
"""The libFuzzer harnesses of tests/fuzz, built over a compiled network, with the address and undefined sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import clibrary
from medyate.run.train import Compiled

FUZZ = Path(__file__).parent / "fuzz"
LIMITS = ("-rss_limit_mb=2048", "-timeout=20", "-max_len=1024", "-len_control=0", "-print_final_stats=1")
EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def build(harness: str, compiled: Compiled, folder: Path) -> Path:
    """The program of tests/fuzz/<harness>.c; 'link' has the server, too."""
    project = compiled.folder / "project"
    program = folder / f"fuzz_{harness}"
    left_out = () if harness == "link" else ("link.c", "serve.c")
    sources = [f for f in (project / "runtime" / "src").rglob("*.c") if f.name not in left_out]
    sources += (project / "runtime" / "kernels" / "ref").glob("*.c")
    sources += [f for f in (project / "src").glob("*.c") if f.name != "mdy_memory.c"]
    sources += [clibrary.RUNTIME / "ports" / "emu" / "flash_emu.c", FUZZ / f"{harness}.c"]
    command = ["clang", "-std=c11", "-g", "-O2", *clibrary.WARNINGS]
    command += ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    command += [f"-I{project / 'src'}", f"-I{project / 'runtime' / 'include'}"]
    command += [f"-I{clibrary.RUNTIME / 'ports' / 'emu'}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def fuzz(program: Path, *options: str) -> int:
    """Inputs that were executed. Raises AssertionError with what the sanitizers say of one that fails."""
    # A child of a shell: the limit counts the memory that the process had before it became the program.
    command = ["sh", "-c", '"$@"; exit $?', "sh", str(program), *LIMITS, *options]
    ran = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-6000:]
    found = EXECUTED.search(ran.stderr)
    assert found, ran.stderr[-2000:]
    return int(found[1])
