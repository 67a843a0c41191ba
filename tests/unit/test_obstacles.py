# SPDX-License-Identifier: Apache-2.0
"""A refusal lists all that keeps a network out, how often, and what each would need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import helper
from torch import nn

from medyate import frontends
from medyate.errors import UnsupportedOpError
from medyate.export.flatfile import Options
from medyate.frontends import torch as torch_frontend
from onnx_files import MAP, real, write
from tflite_nets import Net


def refusal(path: Path) -> UnsupportedOpError:
    with pytest.raises(UnsupportedOpError) as found:
        frontends.load(path)
    return found.value


def test_all_operators_of_a_tflite_file_are_named(tmp_path: Path) -> None:
    net = Net().conv(4)
    half = Options("ResizeBilinearOptions", {})
    net.op("RESIZE_BILINEAR", (1, 16, 16, 4), net.whole(16, 16), options=half)
    net.op("FLOOR", (1, 16, 16, 4)).conv(4).op("FLOOR", (1, 16, 16, 4))
    said = refusal(net.mean().linear(3).save(tmp_path / "net.tflite")).what
    assert said.startswith("3 nodes of 'net' cannot be imported.")
    assert "2 times FLOOR ('floor" in said
    assert "RESIZE_BILINEAR ('resize_bilinear" in said and "the nearest pixel is supported" in said


def test_all_nodes_of_an_onnx_graph_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "g", "g"], ["a"], "first"),
        helper.make_node("Sin", ["a"], ["b"], "second"),
        helper.make_node("Conv", ["b", "w"], ["c"], "layer"),
        helper.make_node("Sin", ["c"], ["y"], "third"),
    ]
    said = refusal(write(tmp_path / "net.onnx", nodes, {"g": real(4), "w": real(3, 4, 3, 3)}, MAP)).what
    assert "3 nodes" in said and "2 times Sin ('second', 'third')" in said and "their own deviation" in said


def test_all_nodes_of_a_program_are_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())
    with pytest.raises(UnsupportedOpError) as found:
        torch_frontend.from_module(module, torch.zeros(1, 3, 8, 8), "net")
    assert "2 nodes of 'net'" in found.value.what and "2 times aten.group_norm.default" in found.value.what


def test_one_obstacle_is_said_alone_and_without_a_contradiction(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Div", ["a", "x"], ["y"], "quotient")]
    found = refusal(write(tmp_path / "net.onnx", nodes, {"w": real(4, 4, 1, 1)}, MAP))
    assert (found.node, found.op) == ("quotient", "Div")
    assert "Supported here" not in found.remedy and "docs/ops.md" in found.remedy
