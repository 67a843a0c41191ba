# SPDX-License-Identifier: Apache-2.0
"""The frontends' tables, of which docs/ops.md is written: a row becomes what it declares, no more and no less."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tflite_cases
from medyate.arithmetic.functions import KINDS
from medyate.errors import UnsupportedOpError
from medyate.frontends import load, onnx, tflite
from medyate.frontends import torch as torch_frontend
from medyate.frontends.builder import LAYOUT, GraphBuilder, made
from medyate.frontends.table import GONE, Row
from medyate.ops import OPS
from onnx_cases import BRANCHES, NODES
from onnx_files import MAP, chain, node, quantise, write
from onnx_quantised_cases import HAND_MADE, NOT_IN_ONNXRUNTIME, PROBABILITIES, TO_QUANTISE
from torch_cases import (
    AS_EXPORTED,
    FUNCTIONS,
    IMAGE,
    MAPS,
    SERIES,
    SERIES_BODIES,
    SPELLED,
    VECTOR,
    VECTOR_BODIES,
    exported,
)

TABLES: dict[str, list[tuple[str, Row[Any, Any]]]] = {
    "tflite": list(tflite.HANDLERS.items()),
    "onnx": list(onnx.HANDLERS.items()),
    "torch": [(names, row) for row, names in torch_frontend.TABLE] + [("spelled out", torch_frontend.RECOGNISED)],
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[str]]:
    """What every row has become so far, by the row's id; moves in front of an operation are nobody's."""
    found: dict[int, set[str]] = defaultdict(set)
    running: list[Row[Any, Any]] = []
    call, emit = Row.__call__, GraphBuilder.emit

    def watched_call(row: Row[Any, Any], *arguments: Any) -> None:
        running.append(row)
        try:
            call(row, *arguments)
        finally:
            running.pop()

    def watched_emit(builder: GraphBuilder, node: str, op: str, attrs: Any, *rest: Any) -> None:
        emit(builder, node, op, attrs, *rest)
        if builder._declared is not LAYOUT:
            for row in running:
                found[id(row)].add(made(op, attrs))

    monkeypatch.setattr(Row, "__call__", watched_call)
    monkeypatch.setattr(GraphBuilder, "emit", watched_emit)
    return found


def unmade(table: str, seen: dict[int, set[str]]) -> list[tuple[str, str]]:
    """(operation of the format, what it should have become somewhere)."""
    return [(name, missing) for name, row in TABLES[table] for missing in sorted(row.makes - seen[id(row)])]


@pytest.mark.parametrize("table", TABLES)
def test_a_row_names_operations_of_the_ir_or_says_why_there_is_none(table: str) -> None:
    known = (OPS.keys() - {"activation"}) | set(KINDS)
    for name, row in TABLES[table]:
        assert row.makes <= known, name
        assert row.gone in ("", *GONE), name
        assert row.makes or row.gone, name


def test_what_a_row_does_not_declare_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.onnx", *chain(node("Relu")))
    assert [made(n.op, n.attrs) for n in load(path).graph] == ["clip"]
    monkeypatch.setitem(onnx.HANDLERS, "Relu", replace(onnx.HANDLERS["Relu"], makes=frozenset({"sigmoid"})))
    with pytest.raises(UnsupportedOpError, match=r"\(clip\).*does not say that it becomes one"):
        load(path)


def test_every_row_of_tflite_becomes_what_it_declares(seen: dict[int, set[str]], tmp_path: Path) -> None:
    for case in tflite_cases.CASES:
        (tmp_path / "one.tflite").write_bytes(case.file())
        load(tmp_path / "one.tflite")
    assert unmade("tflite", seen) == []


def test_every_row_of_onnx_becomes_what_it_declares(seen: dict[int, set[str]], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for extent, opset, (nodes, arrays) in NODES.values():
        load(write(path, nodes, arrays, extent, opset))
    for extent, nodes, arrays in (*BRANCHES.values(), *HAND_MADE.values(), *NOT_IN_ONNXRUNTIME.values()):
        load(write(path, nodes, arrays, extent, 13))
    samples = np.random.default_rng(5).normal(size=(4, *MAP[1:])).astype(np.float32)
    for nodes, arrays in (*TO_QUANTISE.values(), PROBABILITIES):
        write(path, nodes, arrays, opset=13)
        for form in ("QDQ", "QOperator"):
            load(quantise(path, samples, form, per_channel=False, unsigned=True))
    assert unmade("onnx", seen) == []


@pytest.mark.long
def test_every_row_of_torch_becomes_what_it_declares(seen: dict[int, set[str]]) -> None:
    bodies = {
        VECTOR: VECTOR_BODIES.values(),
        SERIES: SERIES_BODIES.values(),
        IMAGE: (*MAPS.values(), *FUNCTIONS.values(), *(body for body, _ in SPELLED)),
    }
    programs = [form for x, group in bodies.items() for body in group for form in exported(body, x)[1]]
    programs += [exported(body, IMAGE)[1][0] for body in AS_EXPORTED.values()]
    for program in programs:
        torch_frontend._run(torch_frontend.Importer(program, "test", torch_frontend.SUPPORTED))
    assert unmade("torch", seen) == []
