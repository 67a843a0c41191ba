# SPDX-License-Identifier: Apache-2.0
"""Networks with several outputs: each is imported, compared, and trained where it is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, load, save
from torch import nn

from conftest import Cli
from medyate import frontends
from medyate.check import check
from medyate.errors import ModelError
from medyate.stages import silent
from onnx_files import real, write
from tflite_nets import Net


class Two(nn.Module):
    """A class and a place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.kind, self.place = nn.Linear(6, 4), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x).relu().mean((2, 3))
        return self.kind(features), self.place(features)


def tflite_file(folder: Path) -> Path:
    net = Net().conv(6, activation=1).mean()
    features = net.last
    first = net.linear(4).softmax().last
    net.last = features
    return net.linear(2).save(folder / "two.tflite", first)


def onnx_file(folder: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "v"], ["y"]),
        helper.make_node("Gemm", ["c", "u"], ["z"]),
        helper.make_node("Sin", ["z"], ["w2"]),
    ]
    path = write(folder / "two.onnx", nodes, {"w": real(6, 3, 3, 3), "v": real(6, 4), "u": real(6, 2)}, (1, 3, 8, 8))
    model = load(path)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2]))
    save(model, path)
    return path


def torch_file(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Two().eval(), (torch.randn(1, 3, 8, 8),)), folder / "two.pt2")
    return folder / "two.pt2"


FILES = {"tflite": tflite_file, "onnx": onnx_file, "torch": torch_file}


@pytest.mark.parametrize("form", FILES)
def test_every_output_is_that_of_the_formats_runtime(form: str, tmp_path: Path) -> None:
    path = FILES[form](tmp_path)
    names = frontends.load(path).outputs
    assert len(names) == 2
    sizes = set()
    for name in names:
        report = check(path, "host", 20, None, "auto", 0, silent, name)
        assert report.match, report.faults
        graph = frontends.load(path, name).graph
        sizes.add(graph.shapes[graph.output][2])
    assert sizes == {4, 2}
    with pytest.raises(ModelError, match="has no output 'third'"):
        frontends.load(path, "third")


def test_the_output_that_is_trained_is_named(run_cli: Cli, tmp_path: Path) -> None:
    path = tflite_file(tmp_path)
    random = np.random.default_rng(2)
    y = np.arange(96) % 3
    x = np.clip(random.integers(0, 60, (96, 8, 8, 3)) + 60 * y[:, None, None, None], 0, 255).astype(np.uint8)
    source = tmp_path / "data.npz"
    np.savez(source, x_train=x[:72], y_train=y[:72], x_test=x[72:], y_test=y[72:])
    given = ("--data", source, "--ram", "64KiB", "-o", tmp_path / "out")
    refused = run_cli("compile", path, *given)
    names = frontends.load(path).outputs
    assert refused.code == 2 and "--output" in refused.err and all(name in refused.err for name in names)
    assert run_cli("compile", path, *given, "--output", names[1]).code == 0
    ran = run_cli("run", tmp_path / "out", "--data", source, "--epochs", 2, "--evaluate-at-end", "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["loss_after"] < result["loss_before"]
    assert run_cli("export", tmp_path / "out", "-o", tmp_path / "back.tflite").code == 0
    assert check(tmp_path / "back.tflite", "host", 20, None, "auto", 0, silent).match
    looked = run_cli("inspect", path, "--json")
    assert json.loads(looked.out)["outputs"] == list(names)
    compared = run_cli("verify", path, "--samples", 5, "--json")
    assert compared.code == 0 and set(json.loads(compared.out)["outputs"]) == set(names)
