# SPDX-License-Identifier: Apache-2.0
"""The bound of the stack: the deepest path of a call graph, through pointers, or a refusal with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medyate.build.stack import LIBRARY_BYTES, bound
from medyate.errors import ToolchainError
from shared_files import ROOT


def node(name: str, frame: int, kind: str = "static") -> str:
    return f'node: {{ title: "{name}" label: "{name}\\nfile.c:1:1\\n{frame} bytes ({kind})" }}\n'


def edge(source: str, target: str, where: str = "app/main.c:1:1") -> str:
    return f'edge: {{ sourcename: "{source}" targetname: "{target}" label: "{where}" }}\n'


class Program:
    """Call graphs and the sources that they point to, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("app", "src", "runtime/src/ops", "boards", "build"):
            (folder / name).mkdir(parents=True)

    def source(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def bound(self, *files: str) -> int | None:
        for number, text in enumerate(files):
            (self.folder / "build" / f"{number}.ci").write_text(text)
        return bound(self.folder, self.folder / "build")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_the_deepest_path_counts_and_files_know_each_other(program: Program) -> None:
    first = node("main", 8) + edge("main", "one") + edge("main", "two")
    assert program.bound(first, node("one", 100) + node("two", 40) + node("three", 70) + edge("two", "three")) == 118


def test_a_library_function_takes_its_allowance(program: Program) -> None:
    outside = 'node: { title: "memcpy" label: "__builtin_memcpy\\n<built-in>" shape : ellipse }\n'
    assert program.bound(node("main", 8) + outside + edge("main", "memcpy")) == 8 + LIBRARY_BYTES


def test_a_port_begins_before_main(program: Program) -> None:
    assert program.bound(node("mdy_reset", 12) + edge("mdy_reset", "main") + node("main", 8)) == 20


def test_calls_through_a_table_reach_all_that_it_names(program: Program) -> None:
    program.source("runtime/src/run.c", "\n    layer->op->forward(p, w);\n")
    program.source("runtime/src/ops/a.c", "static const x = {\n    .forward = a_forward,\n};\n")
    program.source("runtime/src/ops/b.c", "static const y = {\n    .forward = b_forward,\n};\n")
    program.source("src/model.c", "const z = {\n    .forward = forward,\n};\n")
    graph = node("main", 8) + edge("main", "__indirect_call", "runtime/src/run.c:2:5")
    graph += node("a_forward", 50) + node("runtime/src/ops/b.c:b_forward", 90) + node("src/model.c:forward", 4000)
    assert program.bound(graph) == 98


def test_a_hook_that_nobody_sets_takes_nothing(program: Program) -> None:
    program.source("runtime/src/run.c", "if (m->yield(m->context)) {\n")
    assert program.bound(node("main", 8) + edge("main", "__indirect_call", "runtime/src/run.c:1:5")) == 8


def test_a_table_in_which_nothing_is_found_is_refused(program: Program) -> None:
    program.source("runtime/src/run.c", "layer->op->forward(p, w);\n")
    with pytest.raises(ToolchainError, match="nothing is found"):
        program.bound(node("main", 8) + edge("main", "__indirect_call", "runtime/src/run.c:1:1"))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (node("main", 8) + node("again", 8) + edge("main", "again") + edge("again", "again"), "calls itself"),
        (node("main", 8, "dynamic"), "no fixed size"),
        (node("main", 8) + edge("main", "__indirect_call"), "a pointer that is not known"),
    ],
    ids=["recursion", "variable frame", "unknown pointer"],
)
def test_what_has_no_bound_is_refused(program: Program, graph: str, reason: str) -> None:
    program.source("app/main.c", "callback(1);\n")
    with pytest.raises(ToolchainError, match=reason):
        program.bound(graph)


def test_a_compiler_without_call_graphs_gives_no_bound(program: Program) -> None:
    assert program.bound() is None


def medyate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from medyate.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_second_plan_uses_what_the_first_image_leaves(tmp_path: Path) -> None:
    model = str(ROOT / "models" / "digitnet" / "digitnet.onnx")
    given = (model, "--data", "digits", "--ram", "24KiB", "--target", "qemu-m7", "--builder", "make", "--json")
    loose = json.loads(medyate("compile", *given, "-o", str(tmp_path / "loose")).stdout)
    ranking = ("--ranking", str(tmp_path / "loose" / "04_ranking.json"))
    tight = json.loads(medyate("compile", *given, *ranking, "--stack", "bound", "-o", str(tmp_path / "tight")).stdout)
    model_json = json.loads((tmp_path / "tight" / "model.json").read_text())
    assert tight["b_mem_bytes"] > loose["b_mem_bytes"]
    assert model_json["stack_bound_bytes"] <= tight["stack_reserved_bytes"] < loose["stack_reserved_bytes"]
    assert model_json["static_bytes"] <= tight["static_reserved_bytes"] < loose["static_reserved_bytes"]
    taken = tight["arena_bytes"] + tight["static_reserved_bytes"] + tight["stack_reserved_bytes"]
    assert 24 * 1024 - 8 < taken <= 24 * 1024
    small = medyate("compile", *given, *ranking, "--stack", "256", "-o", str(tmp_path / "small"))
    assert small.returncode == 2
    assert "--stack bound" in small.stderr
    assert not (tmp_path / "small" / "model.json").exists()
