# SPDX-License-Identifier: Apache-2.0
"""Names are only names: whatever a network calls its layers and tensors, the plan and the program are the same."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from medyate import frontends
from medyate.artefact import read_arrays, write_arrays
from medyate.datasets import Dataset
from medyate.emit.emitter import emit
from medyate.frontends.builder import NAME_MAX, printable
from medyate.ir import Node, QGraph, Weights
from medyate.plan.budget import NOTHING, Limits, Network, Way, measure
from medyate.plan.plan import Plan, make_plan
from medyate.plan.recompute import Blocks
from medyate.plan.selecting import Selecting
from medyate.plan.stream import Planner
from medyate.quantize.apply import input_quant
from medyate.rank.lara import Ranking
from medyate.report.memory_map import draw_plan
from medyate.stages import Options, make_head, make_ranking, prepare, silent
from nets import InvertedResidual, conv_norm, randomise
from probe import RUNTIME, Probe

C_WORDS = ["while", "int", "_Bool", "int8_t", "INT8_MAX", "NULL", "memset", "memcpy", "main", "errno", "EOF", "assert"]
OWN_WORDS = ["biases", "head", "head_w", "candidates", "forward", "m", "row", "stage", "mdy_t", "mdy_model", "MDY_NONE"]
PLANNER = ["logits", "dlogits", "target", "head/acc", "input", *(f"scratch {n}" for n in range(8))]
STRANGE = ["", "_", "__", "1", "-", ".", "a.b", "a_b", "a-b", "ä", "日本", "*/ x /*", "a\\", 'a"b', "??/", "a" * 300]
ENDINGS = [
    *("/again 1", "/again 0", "/mask", "/row", "/row/again 1", "/back", "/tap", "/sums", "/sum/a", "/place", "_"),
    *("_w", "_p", "_y", "_dy", "_dy2", "__w", "__y", "_bias", "_bias_mult", "_bias_exponent", "_mask", "_again1"),
    *("_again1_y", "_2", "_n", ".weight", ".bias", ".table"),
]
WORDS = [*C_WORDS, *OWN_WORDS, *PLANNER, *STRANGE, "a", "x", "d_a", "d_x"]
NAMES = st.one_of(
    st.sampled_from(WORDS),
    st.builds("{}{}".format, st.sampled_from(["a", "x", "d_a", "n_a"]), st.sampled_from(ENDINGS)),
    st.text(max_size=8),
)
SETTINGS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # to shrink takes minutes
)


class Net(nn.Module):
    """A sum, depthwise layers, wide blocks, a product that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(1, 4, 3, 2), nn.ReLU6())
        self.blocks = nn.Sequential(InvertedResidual(4, 4, 3, 1, 3), InvertedResidual(4, 6, 3, 2, 3))
        self.gate = nn.Conv2d(6, 6, 1)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        y = self.blocks(self.stem(x))
        y = y * torch.sigmoid(self.gate(y)) + y
        logits: torch.Tensor = self.classifier(y.mean([2, 3]))
        return logits


class Subject:
    """A ranked network whose names can be changed."""

    def __init__(self, folder: Path) -> None:
        module = Net()
        randomise(module, torch.Generator().manual_seed(5))
        torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 1, 16, 16),)), folder / "net.pt2")
        random = np.random.default_rng(4)
        x, y = random.integers(0, 255, (48, 16, 16, 1), np.uint8), np.arange(48) % 4
        dataset = Dataset("noise", ("0", "1", "2", "3"), x, y, x, y)
        normal, self.qgraph, self.weights, dataset, meaning = prepare(
            frontends.load(folder / "net.pt2"), dataset, "unit"
        )
        options = Options("host", Limits(0), rank_epochs=1)
        self.ranking, trained = make_ranking(normal, dataset, meaning, options, silent)
        self.head = make_head(normal, (self.qgraph, self.weights), dataset, meaning, "new")
        self.samples, self.labels = meaning.int8(dataset.x_train, input_quant(self.qgraph)), y
        self.trained = (trained, np.zeros(len(trained), np.float32))

    def named(self, nodes: dict[str, str], tensors: dict[str, str]) -> tuple[QGraph, Weights, Ranking]:
        """The same network under other names."""
        graph = self.qgraph.graph
        made = tuple(
            Node(nodes[n.name], n.op, tuple(tensors[name] for name in n.inputs), tensors[n.output], n.attrs)
            for n in graph
        )
        shapes = tuple((tensors[name], shape) for name, shape in graph.tensors)
        ends = {"input": tensors[graph.input], "output": tensors[graph.output]}
        quants = tuple((tensors[name], quant) for name, quant in self.qgraph.quants)
        qgraph = replace(self.qgraph, graph=replace(graph, nodes=made, tensors=shapes, **ends), quants=quants)
        parts = ((key.rpartition("."), array) for key, array in self.weights.items())
        weights = {f"{nodes[node]}.{role}": array for (node, _, role), array in parts}
        scores = tuple(replace(score, layer=nodes[score.layer]) for score in self.ranking.scores)
        return qgraph, weights, Ranking(self.ranking.network, self.ranking.task, scores)

    def plan(self, nodes: dict[str, str], tensors: dict[str, str], again: bool) -> Plan:
        """Every kind of value: rings, reruns, sums by rows, trained biases."""
        qgraph, weights, ranking = self.named(nodes, tensors)
        biases = tuple(score.layer for score in ranking.scores[2:5])
        limits = Limits(1 << 20, schedule="stream", selecting=Selecting(biases=biases))
        network = Network(qgraph, weights, self.head.loss, Planner())
        choices = Blocks(qgraph.graph, limits.trained(ranking.scores)).choices()
        way = Way(again, choices[-1] if again else NOTHING)
        row = measure(network, limits.candidates(ranking), limits, way, careful=False)
        calibration = (self.samples[:4], self.labels[:4], self.trained)
        return make_plan(qgraph, weights, ranking, self.head, limits, calibration, (row, (row,)))

    def own(self) -> tuple[dict[str, str], dict[str, str]]:
        """The names that it has."""
        graph = self.qgraph.graph
        return {node.name: node.name for node in graph}, {name: name for name, _ in graph.tensors}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(tmp_path_factory.mktemp("names"))


def without_names(sources: dict[str, str]) -> str:
    """The program with the network's identifiers numbered and without comments."""
    text = re.sub(r"/\*.*?\*/", "", "".join(sources.values()), flags=re.DOTALL)
    text = re.sub(r"\.digest = \w+|[ \t]+", " ", text)
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        ident, _, what = found.group().partition("__")
        return f"n{numbers.setdefault(ident, len(numbers))}__{what}"

    return re.sub(r"\bn_\w+", number, text)


def compiles(sources: dict[str, str], folder: Path) -> None:
    """No identifier clashes with another, or with what headers bring."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    headers = "".join(f"#include <{name}.h>\n" for name in ("stdlib", "string", "errno", "math", "stdio", "unistd"))
    (folder / "all.c").write_text(headers + '#include "mdy_model.c"\n')
    flags = ("-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror", "-DMDY_GRAD_BITS=8")
    own = (f"-I{RUNTIME / 'include'}", f"-DMDY_ROUND_ONCE={int('ROUND_ONCE 1' in sources['mdy_model.h'])}")
    command = ["cc", *flags, *own, "-fsyntax-only", str(folder / "all.c")]
    subprocess.run(command, check=True, cwd=folder)


@cache
def plain(subject: Subject, again: bool) -> str:
    return without_names(emit(subject.plan(*subject.own(), again)))


@SETTINGS
@given(data=st.data())
def test_every_name_gives_the_same_program(subject: Subject, tmp_path: Path, data: st.DataObject) -> None:
    nodes, tensors = subject.own()
    drawn = [data.draw(st.lists(NAMES, min_size=len(own), max_size=len(own), unique=True)) for own in (nodes, tensors)]
    again = data.draw(st.booleans())
    plan = subject.plan(dict(zip(nodes, drawn[0], strict=True)), dict(zip(tensors, drawn[1], strict=True)), again)
    sources = emit(plan)
    assert without_names(sources) == plain(subject, again)
    compiles(sources, tmp_path)


def trained(plan: Plan, subject: Subject, folder: Path) -> tuple[int, ...]:
    """Digests and logits after some steps of training."""
    probe = Probe(plan, folder, record=False)
    probe.init(seed=3, rate_mult=24576, rate_exponent=-20, clip=0.05)
    for number in range(8):
        probe.step(subject.samples[number], subject.labels[number])
    probe.end_epoch()
    return (*probe.digests(), *(int(value) for value in probe.infer(subject.samples[-1])))


def test_the_worst_names_train_the_same_integers(subject: Subject, tmp_path: Path) -> None:
    nodes, tensors = subject.own()
    worst_nodes = [*C_WORDS, *OWN_WORDS]
    worst = ["logits", "scratch 0", "scratch 1", "scratch 2", "a", "a/again 1", "a/again 0", "d_a", "d_d_a", "target"]
    worst += [f"{name}{ending}" for name in worst_nodes for ending in ("/mask", "/sums", "/row")]
    plans = [
        subject.plan(*subject.own(), True),
        subject.plan(dict(zip(nodes, worst_nodes, strict=False)), dict(zip(tensors, worst, strict=False)), True),
    ]
    first, second = (trained(plan, subject, tmp_path / str(number)) for number, plan in enumerate(plans))
    assert first == second


def test_what_terminals_archives_and_pictures_cannot_hold_is_replaced_once(tmp_path: Path) -> None:
    names = ["a\0b", "a?b", "a\nb", "\x1b[31mred", "\ud800", "long" * 30000, "x" + "long" * 30000, "plain", ""]
    found = printable(names)
    assert found["plain"] == "plain" and found["a?b"] == "a?b" and found[""] == ""
    assert len(set(found.values())) == len(names)
    assert all(name.isprintable() and len(name) <= NAME_MAX + 2 for name in found.values())
    arrays = {f"{name}.weight": np.array([number]) for number, name in enumerate(found.values())}
    write_arrays(tmp_path / "arrays.npz", arrays)
    assert read_arrays(tmp_path / "arrays.npz") == arrays


def test_names_of_a_file_are_those_of_the_ir(tmp_path: Path) -> None:
    helper, rng = onnx.helper, np.random.default_rng(0)
    weights = [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in SHAPES.items()]
    nodes = [
        helper.make_node("Conv", ["scratch 2", "logits.w"], ["[/red] $x$"], "biases", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["[/red] $x$"], ["logits"], "memset"),
        helper.make_node("Flatten", ["logits"], ["logits/1"], "flatten"),
        helper.make_node("Gemm", ["logits/1", "dense"], ["scratch 0"], "NULL"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("scratch 2", [1, 1, 6, 6]), ("scratch 0", [1, 3]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    imported = frontends.load(tmp_path / "a.onnx")
    assert imported.graph.input == "scratch 2" and not imported.notes
    assert next(node.name for node in imported.graph) == "biases"


SHAPES = {"logits.w": (2, 1, 3, 3), "dense": (72, 3)}


def test_a_picture_takes_dollars_as_they_are(subject: Subject, tmp_path: Path) -> None:
    nodes, tensors = subject.own()
    plan = subject.plan(nodes, {name: f"${name}$ \\frac{{" for name in tensors}, False)
    content = {**plan.to_json(), "board": None, "regions": [{"region": "free", "bytes": 64, "area": "RAM"}]}
    draw_plan(content, [tmp_path / "map.svg"])
    assert (tmp_path / "map.svg").stat().st_size > 1000
