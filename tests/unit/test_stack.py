# SPDX-License-Identifier: Apache-2.0
"""The bound of the stack: the deepest path of a call graph, through pointers, or a refusal with its reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medyate.build.stack import EXCEPTION_BYTES, LIBRARY, bound
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
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
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


def outside(name: str) -> str:
    return f'node: {{ title: "{name}" label: "{name}\\nlibrary.h:1:1" shape : ellipse }}\n'


def test_a_library_function_takes_what_its_table_says(program: Program) -> None:
    assert program.bound(node("main", 8) + outside("memcpy") + edge("main", "memcpy")) == 8 + LIBRARY["memcpy"]


def test_a_function_of_which_nothing_is_known_is_refused_until_its_bytes_are_declared(program: Program) -> None:
    graph = node("main", 8) + node("work", 16) + edge("main", "work") + outside("HAL_Erase") + edge("work", "HAL_Erase")
    with pytest.raises(ToolchainError, match="nothing is known of 'HAL_Erase', which 'work' calls") as raised:
        program.bound(graph)
    assert "/* stack bytes of HAL_Erase: 256 */" in raised.value.remedy
    program.source("boards/port.c", "/* stack bytes of HAL_Erase: 40 */\n")
    assert program.bound(graph) == 64


def test_a_function_without_a_frame_is_not_taken_for_none(program: Program) -> None:
    graph = 'node: { title: "odd" label: "odd\\nfile.c:1:1" }\n' + node("main", 8) + edge("main", "odd")
    with pytest.raises(ToolchainError, match="nothing is known of 'odd', which 'main' calls"):
        program.bound(graph)


def test_the_larger_of_two_frames_of_a_name_counts(program: Program) -> None:
    assert program.bound(node("main", 8) + edge("main", "x") + node("x", 90), node("x", 20)) == 98


HOOK = node("main", 8) + edge("main", "mdy_load") + node("mdy_load", 16)
HOOK += edge("mdy_load", "__indirect_call", "runtime/src/run.c:1:5") + node("app/main.c:big", 4096)


@pytest.mark.parametrize(
    "text",
    [
        "config.load = big;",
        "config->load=big;",
        "mdy_config_t c = {.seed = 1, .load = big};",
        "mdy_config_t c = {\n    .load = &big,\n    .seed = 1,\n};",
        "config.load = (loader_t)big;",
        "net.load = NULL; net.load = big; other.load = config->load;",
        "/* stack bytes of load: 4096 */ config.load = pick(1);",
        "config.load = far; /* stack bytes of far: 4096 */",
    ],
)
@pytest.mark.parametrize("place", ["app/main.c", "boards/own.c", "lib/own/main.c"])
def test_a_hook_counts_however_it_is_set(text: str, place: str, program: Program) -> None:
    program.source("runtime/src/run.c", "if (m->load(m->context, row, values)) {\n")
    program.source(place, text)
    here = f'node: {{ title: "setup" label: "setup\\n{place}:1:1\\n8 bytes (static)" }}\n'
    assert program.bound(HOOK + here) == 8 + 16 + 4096


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("config.load = far;", "nothing is known of 'far', which 'mdy_load' calls"),
        ("config.load = loaders[2];", "is no function"),
        ("config.load = fast ? big : small;", "is no function"),
        ("mdy_config_t c = {1, schedule, 0, 0, 0, yield, NULL};", "set by position"),
        ("start((mdy_config_t){1, schedule});", "set by position"),
        (
            "mdy_flash_t flash = {&geometry, NULL, read, erase, program, map};",
            "an mdy_flash_t in 'main.c' is set by position",
        ),
        ("mdy_flash_t both[2] = {{&geometry, NULL, read, erase}};", "an mdy_flash_t in 'main.c' is set by position"),
        ("const mdy_optimizer_t own = {layer, tap, biases, batch};", "an mdy_optimizer_t in 'main.c' is set"),
        ("const mdy_port_t port = {&flash, NULL, receive};", "an mdy_port_t in 'main.c' is set by position"),
    ],
)
def test_a_hook_that_cannot_be_told_is_refused(text: str, reason: str, program: Program) -> None:
    program.source("runtime/src/run.c", "if (m->load(m->context, row, values)) {\n")
    program.source("app/main.c", text)
    with pytest.raises(ToolchainError, match=re.escape(reason)):
        program.bound(HOOK)


def test_a_pointer_of_an_application_is_declared(program: Program) -> None:
    program.source("app/main.c", "device->send(1); /* stack bytes of send: 100 */\n")
    assert program.bound(node("main", 8) + edge("main", "__indirect_call", "app/main.c:1:1")) == 108


CPUS = {"cortex-m4": "soft", "cortex-m7": "soft", "cortex-m55": "soft", "cortex-m55+nofp": "hard"}
"""And what passes numbers: with `hard`, functions of the library may use vectors."""


def linked(cpu: str, specs: tuple[str, ...], folder: Path) -> str:
    """Disassembly of the library's functions as the linker takes them for a core."""
    used = ", ".join(f"(void *){name}" for name in LIBRARY)
    declared = "".join(f"void {name}(void);\n" for name in LIBRARY)
    (folder / "use.c").write_text(f"{declared}void *used[] = {{{used}}};\nint main(void) {{ return used[0] != 0; }}\n")
    command = [
        "arm-none-eabi-gcc",
        f"-mcpu={cpu}",
        "-mthumb",
        f"-mfloat-abi={CPUS[cpu]}",
        "-fno-builtin",
        "-nostartfiles",
        *specs,
    ]
    subprocess.run([*command, "-Wl,-emain", "use.c", "-o", "use.elf"], cwd=folder, check=True)
    dump = ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", "use.elf"]
    return subprocess.run(dump, cwd=folder, capture_output=True, text=True, check=True).stdout


def registers(operands: str) -> int:
    """How many a list names."""
    ends = [part.split("-") for part in operands.partition("{")[2].partition("}")[0].split(", ")]
    return sum(1 if len(pair) == 1 else int(pair[1].strip("r")) - int(pair[0].strip("r")) + 1 for pair in ends)


def taken(code: str, operands: str) -> int:
    """Bytes by which an instruction lowers the stack pointer."""
    lowered = re.search(r"\[sp, #-(\d+)\]!", operands)
    if code.startswith("push") or (code.startswith("stmdb") and operands.startswith("sp!")):
        return 4 * registers(operands)
    if code.startswith("sub") and re.match(r"sp(, sp)?, #", operands):
        return int(operands.rpartition("#")[2].split()[0])
    assert not code.startswith(("vpush", "vstmdb", "sub.w sp", "mov.w sp")), (code, operands)
    return int(lowered[1]) if lowered else 0


def functions(text: str) -> dict[str, tuple[int, set[str]]]:
    """(bytes that it takes at most, where else it goes) of every function."""
    found = {}
    for part in re.split(r"\n(?=[0-9a-f]{8} <)", text)[1:]:
        name = re.match(r"[0-9a-f]+ <([^>]+)>", part)[1]
        code = re.findall(r"\t(\S+)\t([^\n]*)", part)
        goes = {to for _, operands in code for to in re.findall(r"<([^>+]+)>", operands)} - {name}
        found[name] = sum(taken(*instruction) for instruction in code), goes
    return found


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("specs", [("--specs=nano.specs",), ()], ids=["nano", "newlib"])
def test_library_functions_take_no_more_than_the_table_says(cpu: str, specs: tuple[str, ...], tmp_path: Path) -> None:
    found = functions(linked(cpu, specs, tmp_path))

    def deepest(name: str) -> int:
        own, goes = found[name]
        return own + max((deepest(other) for other in goes & found.keys()), default=0)

    measured = {name: deepest(name) for name in LIBRARY}
    assert all(measured[name] <= most for name, most in LIBRARY.items()), measured
    assert measured["__aeabi_uldivmod"] >= 48 and measured["memset"] >= 8, measured


def test_a_port_begins_before_main(program: Program) -> None:
    assert program.bound(node("mdy_reset", 12) + edge("mdy_reset", "main") + node("main", 8)) == 20


def test_calls_through_a_table_reach_all_that_it_names(program: Program) -> None:
    program.source("runtime/src/run.c", "\n    layer->op->forward(p, w);\n")
    program.source("runtime/kernels/ref/a.c", "static const x = {\n    .forward = a_forward,\n};\n")
    program.source("runtime/kernels/ref/b.c", "static const y = {\n    .forward = b_forward,\n};\n")
    program.source("runtime/kernels/dsp/b.c", "static const y = {\n    .forward = unknown,\n};\n")  # not compiled
    for name in "ab":
        program.source(f"build/runtime/kernels/ref/{name}.ci", "")
    program.source("src/model.c", "const z = {\n    .forward = forward,\n};\n")
    graph = node("main", 8) + edge("main", "__indirect_call", "runtime/src/run.c:2:5")
    graph += node("a_forward", 50) + node("runtime/src/ops/b.c:b_forward", 90) + node("src/model.c:forward", 4000)
    assert program.bound(graph) == 98


def test_a_hook_that_nobody_sets_takes_nothing(program: Program) -> None:
    program.source("runtime/src/run.c", "if (m->yield(m->context)) {\n")
    assert program.bound(node("main", 8) + edge("main", "__indirect_call", "runtime/src/run.c:1:5")) == 8


def test_a_table_in_which_nothing_is_found_is_refused(program: Program) -> None:
    program.source("runtime/src/run.c", "layer->op->forward(p, w);\n")
    with pytest.raises(ToolchainError, match="no function is found"):
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


def test_an_interrupt_adds_its_frame_and_the_deepest_handler(program: Program) -> None:
    graph = node("main", 8) + node("mdy_isr_uart", 16) + node("mdy_isr_systick", 4) + node("take", 24)
    assert program.bound(graph + edge("mdy_isr_uart", "take")) == 8 + EXCEPTION_BYTES + 16 + 24


def test_the_application_replaces_a_weak_function(program: Program) -> None:
    """Gcc names the weak one by its file, too, and the callers in other files by its name alone."""
    graph = node("main", 8) + edge("main", "hook")
    weak = node("board.c:hook", 16)
    assert program.bound(graph, weak) == 24
    assert program.bound(graph, weak, node("hook", 64)) == 72
